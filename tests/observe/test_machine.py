"""Sensors, on folders that look like machines of several kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2psched.observe.accelerators import Accelerators
from p2psched.observe.cgroups import processor_quota
from p2psched.observe.machine import COST_SHARE, PERIOD_MS, Measured, Sensors
from p2psched.observe.memory import Memory
from p2psched.observe.power import Power
from p2psched.observe.traffic import Traffic
from tests.observe.tree import Tree

GIB = 1 << 30
MEMINFO = "MemTotal:  8388608 kB\nMemFree:  1 kB\nMemAvailable:  4194304 kB\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


# --- memory ---------------------------------------------------------------------------------------


def memory(tree: Tree) -> tuple[int, int]:
    found = Memory(tree.roots)
    found.look()
    return found.total, found.free


def test_memory_is_what_can_be_had_without_swapping(tree: Tree) -> None:
    tree.write("/proc/meminfo", MEMINFO)
    assert memory(tree) == (8192, 4096)


def test_a_container_has_what_its_tightest_cgroup_leaves(tree: Tree) -> None:
    tree.write("/proc/meminfo", MEMINFO)
    tree.write("/proc/self/cgroup", "0::/a/b\n")
    tree.write("/sys/fs/cgroup/a/b/memory.max", "max\n")
    tree.write("/sys/fs/cgroup/a/memory.max", 2 * GIB)
    tree.write("/sys/fs/cgroup/a/memory.current", GIB)
    tree.write("/sys/fs/cgroup/a/memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    assert memory(tree) == (2048, 1536)


def test_cgroups_of_the_first_version_count_too(tree: Tree) -> None:
    tree.write("/proc/meminfo", MEMINFO)
    tree.write("/proc/self/cgroup", "5:cpu,cpuacct:/c\n4:memory:/c\n0::/\n")
    tree.write("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", GIB)
    tree.write("/sys/fs/cgroup/memory/c/memory.usage_in_bytes", GIB // 4)
    tree.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    assert memory(tree) == (1024, 768)


@pytest.mark.parametrize(
    ("path", "text", "quota"),
    [
        ("/sys/fs/cgroup/a/cpu.max", "150000 100000\n", 1.5),
        ("/sys/fs/cgroup/a/cpu.max", "max 100000\n", None),
        ("/sys/fs/cgroup/cpu.max", "50000 100000\n", 0.5),
        ("/sys/fs/cgroup/a/cpu.max", "nonsense\n", None),
    ],
)
def test_a_quota_of_processors_is_found(
    tree: Tree, path: str, text: str, quota: float | None
) -> None:
    tree.write("/proc/self/cgroup", "0::/a\n")
    tree.write(path, text)
    assert processor_quota(tree.roots) == quota


# --- network --------------------------------------------------------------------------------------


def net(tree: Tree, **counts: tuple[int, int]) -> None:
    rows = [f"{name}: {got} 0 0 0 0 0 0 0 {sent} 0 0 0" for name, (got, sent) in counts.items()]
    tree.write("/proc/net/dev", "Inter-| Receive\n face |bytes\n" + "\n".join(rows) + "\n")


def rates(tree: Tree, **after: tuple[int, int]) -> tuple[int, int]:
    traffic = Traffic(tree.roots)
    net(tree, **dict.fromkeys(after, (0, 0)))
    traffic.look(0)
    net(tree, **after)
    traffic.look(2_000)
    return traffic.received, traffic.sent


def test_cards_count_and_bridges_do_not(tree: Tree) -> None:
    tree.write("/sys/class/net/eth0/device/vendor", "1")
    after = {"lo": (1 << 30, 1 << 30), "eth0": (4096, 2048), "bridge": (4096, 4096)}
    assert rates(tree, **after) == (2, 1)


def test_where_no_card_is_of_hardware_all_that_is_no_tunnel_counts(tree: Tree) -> None:
    after = {"lo": (1 << 30, 0), "eth0": (4096, 0), "veth12": (8192, 0)}
    assert rates(tree, **after) == (2, 0)


def test_a_card_that_goes_away_brings_no_negative_rate(tree: Tree) -> None:
    traffic = Traffic(tree.roots)
    net(tree, eth0=(1 << 20, 1 << 20), eth1=(1 << 20, 0))
    traffic.look(0)
    net(tree, eth0=(1 << 20, 1 << 20))
    traffic.look(1_000)
    assert (traffic.received, traffic.sent) == (0, 0)


# --- power ----------------------------------------------------------------------------------------


def supply(tree: Tree, name: str, **values: object) -> None:
    for key, value in values.items():
        tree.write(f"/sys/class/power_supply/{name}/{key}", f"{value}\n")


def power(tree: Tree) -> tuple[int, bool, int]:
    found = Power(tree.roots)
    found.look()
    return found.battery, found.mains, found.temperature


def test_a_machine_without_sensors_is_on_mains(tree: Tree) -> None:
    assert power(tree) == (-1, True, -1)


def test_a_laptop_on_battery(tree: Tree) -> None:
    supply(tree, "BAT0", type="Battery", capacity=80, status="Discharging")
    supply(tree, "BAT1", type="Battery", capacity=40, status="Unknown")
    supply(tree, "AC", type="Mains", online=0)
    supply(tree, "hid-mouse", type="Battery", capacity=3, scope="Device")
    assert power(tree) == (60, False, -1)
    supply(tree, "AC", type="Mains", online=1)
    assert power(tree) == (60, True, -1)


def test_a_battery_without_a_plug_that_says_so(tree: Tree) -> None:
    supply(tree, "b", type="Battery", capacity=50, status="Discharging")
    assert power(tree) == (50, False, -1)
    supply(tree, "b", type="Battery", capacity=51, status="Charging")
    assert power(tree) == (51, True, -1)


def test_the_hottest_sensor_that_makes_sense_counts(tree: Tree) -> None:
    for number, milli in enumerate((41_000, 63_400, -273_000, 200_000)):
        tree.write(f"/sys/class/thermal/thermal_zone{number}/temp", milli)
    assert power(tree) == (-1, True, 63)


def test_chips_are_asked_where_there_are_no_zones(tree: Tree) -> None:
    tree.write("/sys/class/hwmon/hwmon0/temp1_input", 38_000)
    tree.write("/sys/class/hwmon/hwmon0/fan1_input", 1_200)
    assert power(tree) == (-1, True, 38)


# --- accelerators ---------------------------------------------------------------------------------


def found(tree: Tree) -> tuple[int, int, int]:
    accelerators = Accelerators(tree.roots)
    accelerators.find()
    accelerators.look()
    return accelerators.gpus, accelerators.gpus_busy, accelerators.npus


def test_nodes_of_nvidia_count_and_its_card_is_not_counted_twice(tree: Tree) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "dri/renderD128"):
        tree.write(f"/dev/{name}")
    tree.write("/sys/class/drm/renderD128/device/vendor", "0x10de\n")
    assert found(tree) == (2, 0, 0)


def test_a_driver_without_nodes_yet_says_how_many_there_are(tree: Tree) -> None:
    tree.write("/proc/driver/nvidia/gpus/0000:01:00.0/information")
    assert found(tree) == (1, 0, 0)


def test_a_container_that_was_given_none_has_none(tree: Tree) -> None:
    tree.write("/proc/driver/nvidia/gpus/0000:01:00.0/information")
    tree.write("/dev/nvidiactl")
    assert found(tree) == (0, 0, 0)


def test_render_nodes_count_if_they_compute_and_may_be_opened(tree: Tree) -> None:
    for number, vendor in ((128, "0x1002"), (129, "0x8086"), (130, "0x1002"), (131, "0x1234")):
        tree.write(f"/sys/class/drm/renderD{number}/device/vendor", f"{vendor}\n")
        if number != 130:
            tree.write(f"/dev/dri/renderD{number}")
    tree.write("/sys/class/drm/renderD128/device/gpu_busy_percent", "97\n")
    tree.write("/sys/class/drm/renderD129/device/gpu_busy_percent", "3\n")
    assert found(tree) == (2, 1, 0)


def test_other_accelerators_are_counted_apart(tree: Tree) -> None:
    for name in ("hailo0", "apex_0", "accel/accel0", "accel/accel1", "accelerometer", "null"):
        tree.write(f"/dev/{name}")
    assert found(tree) == (0, 0, 4)


# --- all of it ------------------------------------------------------------------------------------


def test_readings_are_new_once_a_second_at_most(tree: Tree) -> None:
    tree.write("/proc/meminfo", MEMINFO)
    sensors = Sensors(tree.folder, roots=tree.roots, allowed=lambda: [0], cpu_ns=lambda: 0)
    for now_ms in range(0, 10 * PERIOD_MS, 100):
        sensors.read(now_ms)
    assert sensors.count == 10


def test_readings_that_cost_more_come_more_seldom(tree: Tree) -> None:
    """Many processes below a peer, or a slow machine: the share of its time stays."""
    cost_us = 20_000
    clock = iter(range(0, 1 << 40, cost_us * 1000))
    sensors = Sensors(
        tree.folder, roots=tree.roots, allowed=lambda: [0], cpu_ns=lambda: next(clock)
    )
    for now_ms in range(0, 100 * PERIOD_MS, 100):
        sensors.read(now_ms)
    assert sensors.count == 100 * PERIOD_MS * 1000 // (COST_SHARE * cost_us)


def test_a_machine_of_which_nothing_is_known_is_told_as_that(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "none")
    sensors = Sensors(tmp_path / "missing", roots=tree.roots, allowed=list)
    first = sensors.read(0)
    assert first == Measured(machine=first.machine)


def test_this_machine_has_processors_memory_and_a_disk(tmp_path: Path) -> None:
    found = Sensors(tmp_path).read(0)
    assert found.cores > 0
    assert 0 < found.memory_free <= found.memory
    assert found.disk_free > 0
