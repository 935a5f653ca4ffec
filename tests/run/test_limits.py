"""Limits of tasks: each is kept, its end is told as what it was, and nobody else notices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec
import pytest

from p2psched.model.isolation import Isolation
from p2psched.model.job import Cause, JobSpec
from tests.run.limit_samples import MIB
from tests.run.rig import ROOT, Rig, TaskEnd, alive, functions, pids_in, program, with_pool
from tests.run.test_programs import shell

SAMPLES: Final = "tests.run.limit_samples"
FILL: Final = "import tests.run.limit_samples as s; s.take_memory(200)"
SPIN: Final = "while :; do :; done"
SLEEPERS: Final = "i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i+1)); done; wait"


def within(spec: JobSpec, **limits: object) -> JobSpec:
    isolation = Isolation(**limits)  # type: ignore[arg-type]  # any of its fields
    return msgspec.structs.replace(spec, isolation=isolation)


def call(name: str, *arguments: object) -> JobSpec:
    return functions(f"{SAMPLES}:{name}", [arguments])


# What takes too much, the limit, how that is told, and words of it.
TOO_MUCH: Final = {
    "memory of a program": (
        program(sys.executable, "-c", FILL, cwd=str(ROOT)),
        {"memory": 64 * MIB},
        (Cause.OOM, "its limit is 67,108,864"),
    ),
    "memory of a program's child": (
        program("sh", "-c", f"{sys.executable} -c '{FILL}'; exit 0", cwd=str(ROOT)),
        {"memory": 64 * MIB},
        (Cause.OOM, "its limit is 67,108,864"),
    ),
    "memory of a function": (
        call("take_memory", 200),
        {"memory": 64 * MIB},
        (Cause.OOM, "its limit is 67,108,864"),
    ),
    "memory of a function, at once": (
        call("take_at_once", 2048),
        {"memory": 64 * MIB},
        (Cause.EXCEPTION, ""),
    ),
    "processes of a program": (
        shell(SLEEPERS),
        {"processes": 8},
        (Cause.SIGNAL, "its limit is 8"),
    ),
    "processes of a function": (
        call("start_processes", 20),
        {"processes": 8},
        (Cause.SIGNAL, "its limit is 8"),
    ),
    "processor time of a program": (
        shell(SPIN),
        {"cpu_s": 1},
        (Cause.SIGNAL, "1 s of processor time"),
    ),
    "processor time of a function": (
        call("exceed_time"),
        {"cpu_s": 1},
        (Cause.SIGNAL, "1 s of processor time"),
    ),
    "files of a function": (
        call("open_files", 300),
        {"files": 64},
        (Cause.EXCEPTION, "Too many open files"),
    ),
    "a file of a program": (
        shell("exec head -c 2000000 /dev/zero > large"),
        {"file_size": MIB},
        (Cause.SIGNAL, "1,048,576 bytes"),
    ),
    "a file of a function": (
        call("write_file", 2),
        {"file_size": MIB},
        (Cause.EXCEPTION, "File too large"),
    ),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskEnd]:
    """Of all that take too much, in one pool, and of one beside them."""
    found: dict[str, TaskEnd] = {}

    async def scenario(rig: Rig) -> None:
        rows = TOO_MUCH.items()
        batches = {what: rig.start(within(spec, **limits)) for what, (spec, limits, _) in rows}
        batches["beside"] = rig.start(shell("echo well"))
        for what, batch in batches.items():
            found[what] = (await rig.ended(batch)).tasks[0]

    with_pool(tmp_path_factory.mktemp("limits"), scenario)
    return found


@pytest.mark.parametrize("what", TOO_MUCH)
def test_who_takes_too_much_is_ended_and_told_why(ends: dict[str, TaskEnd], what: str) -> None:
    cause, words = TOO_MUCH[what][2]
    assert (ends[what].cause, words in str(ends[what].header)) == (cause, True)


def test_a_task_beside_them_ends_well(ends: dict[str, TaskEnd]) -> None:
    assert (ends["beside"].cause, ends["beside"].stdout) == (Cause.OK, b"well\n")


def test_limits_are_kept_by_what_they_let_through(tmp_path: Path) -> None:
    asked = "ulimit -n; ulimit -c; ulimit -t; ulimit -f"
    fixed = "; until [ $(ulimit -Hn) = 64 ]; do :; done"  # a moment after its start

    async def scenario(rig: Rig) -> None:
        bound = within(shell(asked + fixed), files=64, core=0, cpu_s=9, file_size=MIB)
        free = shell(asked.partition(";")[0])
        first, second = rig.start(bound), rig.start(free)
        told = (await rig.ended(first)).tasks[0].stdout.split()
        assert told == [b"64", b"0", b"9", b"2048"]
        assert (await rig.ended(second)).tasks[0].stdout.strip() != b"64"

    with_pool(tmp_path, scenario, slots=1)


def test_each_call_of_a_worker_has_its_own_processor_time(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        spec = functions(f"{SAMPLES}:seconds_left", [()] * 30)
        outcome = await rig.run(within(spec, cpu_s=1))
        used = 0.0
        for index in range(30):
            match outcome.tasks[index].open():
                case (float(used), int(limit)):
                    assert used < limit <= used + 2
        assert used > 1.0, "all of them together took more"

    with_pool(tmp_path, scenario, slots=1)


def test_functions_with_other_limits_get_another_worker(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        assert (await rig.run(within(call("open_files", 20), files=64))).tasks[0].cause is Cause.OK
        assert (await rig.run(call("open_files", 300))).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario, slots=1)


def test_processes_of_a_task_are_spared_when_its_neighbours_die(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(call("run_many", 300))
        deaths = 0
        while rig.outcomes[batch].unstarted is None:
            dying = functions("tests.run.tree_samples:end_so", [("kill",)])
            deaths += (await rig.run(dying)).tasks[0].cause is Cause.SIGNAL
        assert rig.outcomes[batch].tasks[0].cause is Cause.OK
        assert deaths

    with_pool(tmp_path, scenario)


def test_a_program_with_limits_leaves_no_daemon(tmp_path: Path) -> None:
    pid = tmp_path / "daemon"
    script = (
        f"setsid env -i sh -c 'echo $$ > {pid}; exec sleep 600' & "
        f"until [ -s {pid} ]; do sleep 0.01; done"
    )

    async def scenario(rig: Rig) -> None:
        assert (await rig.run(within(shell(script), files=64))).tasks[0].cause is Cause.OK
        (daemon,) = pids_in(pid)
        assert not alive(daemon)

    with_pool(tmp_path, scenario)


def test_a_program_that_is_not_there_is_refused_with_limits_too(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        end = (await rig.run(within(program("no-such-program"), files=64))).tasks[0]
        assert (end.cause, "install it" in str(end.header)) == (Cause.NOT_STARTABLE, True)
        end = (await rig.run(within(program("/proc/version"), files=64))).tasks[0]
        assert (end.cause, "x permission" in str(end.header)) == (Cause.NOT_STARTABLE, True)
        (tmp_path / "bad").write_bytes(b"\0")
        (tmp_path / "bad").chmod(0o700)
        end = (await rig.run(within(program(str(tmp_path / "bad")), files=64))).tasks[0]
        assert (end.cause, "could not be started" in str(end.header)) == (
            Cause.NOT_STARTABLE,
            True,
        )

    with_pool(tmp_path, scenario)


def test_temporary_files_are_in_the_tasks_own_folder(tmp_path: Path) -> None:
    asked = 'echo "$PWD $TMPDIR $HOME"'

    async def scenario(rig: Rig) -> None:
        cwd, temp, home = (await rig.run(shell(asked))).tasks[0].stdout.decode().split()
        assert cwd == temp != home
        cwd, temp, home = (
            (await rig.run(within(shell(asked), own_home=True))).tasks[0].stdout.decode().split()
        )
        assert cwd == temp == home
        said = program("/bin/sh", "-c", asked, env=(("TMPDIR", "/var/tmp"),))
        assert b" /var/tmp " in (await rig.run(said)).tasks[0].stdout
        found = (await rig.run(call("where"))).tasks[0].open()
        assert isinstance(found, dict)
        assert found["cwd"] == found["temp"] != found["home"]
        found = (await rig.run(within(call("where"), own_home=True))).tasks[0].open()
        assert isinstance(found, dict)
        assert found["home"] == found["cwd"]

    with_pool(tmp_path, scenario)
