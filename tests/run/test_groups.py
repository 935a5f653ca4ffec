"""Control groups: what is written into which file, on folders that look like them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.run import cgroups
from p2psched.run.host.bounds import Bounds
from p2psched.run.host.groups import Group, of
from p2psched.run.means import LOOKS, Means

BOTH: Final = Bounds({"memory": 1 << 20, "processes": 9})


def files(folder: Path, **content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def content(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def test_a_group_of_version_2_bounds_memory_and_processes(tmp_path: Path) -> None:
    names = ("memory__max", "memory__swap__max", "memory__oom__group", "pids__max", "cgroup__procs")
    folder = files(tmp_path / "task", **dict.fromkeys(names, ""))
    group = Group([str(tmp_path)], "task")
    group.make(BOTH)
    assert (group.bounds_memory, group.bounds_processes) == (True, True)
    assert content(folder, "memory.max") == str(1 << 20)
    assert content(folder, "memory.swap.max") == "0"
    assert content(folder, "memory.oom.group") == "1"
    assert content(folder, "pids.max") == "9"
    group.join()
    assert content(folder, "cgroup.procs") == "0"
    files(folder, memory__events="low 0\nhigh 0\nmax 7\noom 1\noom_kill 0\n")
    assert not group.was_short_of_memory()
    files(folder, memory__events="low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n")
    assert group.was_short_of_memory()


def test_a_group_of_version_1_is_a_folder_in_each_hierarchy(tmp_path: Path) -> None:
    memory = files(
        tmp_path / "memory" / "task", memory__limit_in_bytes="", memory__memsw__limit_in_bytes=""
    )
    pids = files(tmp_path / "pids" / "task", pids__max="", cgroup__procs="")
    group = Group([str(memory.parent), str(pids.parent)], "task")
    group.make(BOTH)
    assert content(memory, "memory.limit_in_bytes") == str(1 << 20)
    assert content(memory, "memory.memsw.limit_in_bytes") == str(1 << 20)
    assert content(pids, "pids.max") == "9"
    files(memory, memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert group.was_short_of_memory()
    with pytest.raises(OSError, match="takes no processes"):
        group.join()


def test_a_group_that_bounds_nothing_leaves_it_to_those_who_look(tmp_path: Path) -> None:
    group = of({"groups": [str(tmp_path)]}, "task", BOTH)
    assert group is not None
    assert (group.bounds_memory, group.bounds_processes) == (False, False)
    assert not group.was_short_of_memory()
    group.end()
    assert not (tmp_path / "task").exists()
    assert of({"groups": []}, "task", BOTH) is None
    assert of({}, "task", BOTH) is None


def test_a_peer_gets_ready_the_folders_that_it_was_told_of(tmp_path: Path) -> None:
    root = files(tmp_path / "v2", cgroup__controllers="cpu memory pids", cgroup__subtree_control="")
    base = root / next(iter(_bases(root, tmp_path / "pool")))
    files(base, cgroup__subtree_control="")
    found = cgroups.prepare([str(root)], tmp_path / "pool")
    assert found == cgroups.Groups((str(base),), memory=True, processes=True, lack="")
    assert content(root, "cgroup.subtree_control") == "+memory +pids"
    assert content(base, "cgroup.subtree_control") == "+memory +pids"
    files(base / "rest", cgroup__procs="")
    found.admit(77)
    assert content(base / "rest", "cgroup.procs") == "77"
    bare = cgroups.prepare([str(files(tmp_path / "bare"))], tmp_path / "pool")
    assert (bare.memory, "no controller for memory and pids" in bare.lack) == (False, True)
    (tmp_path / "file").touch()
    broken = cgroups.prepare([str(tmp_path / "file")], tmp_path / "pool")
    assert (broken.folders, "Not a directory" in broken.lack) == ((), True)


def _bases(root: Path, pool: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        cgroups.prepare([str(root)], pool)
    yield from (entry.name for entry in root.iterdir() if entry.is_dir())


def test_a_group_that_was_not_delegated_is_left_alone(tmp_path: Path) -> None:
    mounts = f"30 20 0:1 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    process = files(tmp_path / "self", mountinfo=mounts, cgroup="4:memory:/x\n0::/own\n")
    own = files(tmp_path / "own", cgroup__subtree_control="")
    is_root = os.geteuid() == 0
    assert cgroups.delegated(process) == ([] if is_root else [own])
    try:
        os.setxattr(own, "user.delegate", b"1")
    except OSError:
        pytest.skip("no attributes on this filesystem")
    assert cgroups.delegated(process) == [own]
    assert cgroups.delegated(tmp_path / "nobody") == []


def test_status_says_who_enforces_a_limit_and_why_nobody_better() -> None:
    none = {row.limit: row for row in Means().kept()}
    assert none["mem"].by == LOOKS
    assert "--cgroup" in none["mem"].lack
    assert none["files"].by == "the kernel"
    groups = cgroups.Groups(("/x",), memory=False, processes=True, lack="no memory")
    some = {row.limit: row for row in Means(groups=groups, bwrap="/usr/bin/bwrap").kept()}
    assert (some["procs"].by, some["mem"].by) == ("a control group", LOOKS)
    assert some["sandbox"].by == "/usr/bin/bwrap"
