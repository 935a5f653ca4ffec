"""What real tasks say of how far they are, and how one of them is ended for it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from p2psched.model.execution import TaskReport
from p2psched.model.job import Cause, SentFile
from p2psched.model.pace_rules import PaceRules
from p2psched.model.retry import TimeLimits
from p2psched.model.taskset import TaskSet
from p2psched.run import looks
from p2psched.run.host.words import NOTE_BYTES_MAX, Teller, open_line, open_match
from tests.run.rig import ROOT, Rig, functions, program, with_pool
from tests.run.test_programs import shell

process = pytest.mark.process


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "REPORT_S", 0.05)


async def said(rig: Rig, batch: int, index: int = 0, *, done: float) -> TaskReport:
    """The first report of the task that says so."""

    def find() -> list[TaskReport]:
        rows = [reports.get((batch, index)) for reports in rig.reports]
        return [
            row for row in rows if row is not None and row.done == done and row.said_ms is not None
        ]

    await rig.until(find)
    return find()[0]


@pytest.mark.smoke
@process
def test_a_function_says_how_far_it_is_and_the_next_task_says_nothing_yet(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        gates = [tmp_path / name for name in "ab"]
        batch = rig.start(
            functions("say_and_wait", [(1, str(gates[0])), (2, str(gates[1]))], timeout_ms=60_000)
        )
        report = await said(rig, batch, done=1)
        assert (report.total, report.note) == (10, "one é")
        gates[0].touch()
        await rig.until(lambda: (batch, 1) in rig.reports[-1] and rig.reports[-1])
        assert all(
            row.done in {0.0, 2.0} for reports in rig.reports if (row := reports.get((batch, 1)))
        )
        await said(rig, batch, 1, done=2)
        gates[1].touch()
        assert [end.cause for end in (await rig.ended(batch)).tasks.values()] == [Cause.OK] * 2
        await rig.until(lambda: not rig.reports[-1])

    with_pool(tmp_path, scenario, slots=1)


@process
def test_programs_say_it_in_a_file_in_python_and_in_what_they_print(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    until = f"until [ -e {gate} ]; do sleep 0.02; done"
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import os, time, p2psched\n"
        "for n in range(100_000): p2psched.progress(n, 200_000, 'loop')\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    )

    async def scenario(rig: Rig) -> None:
        file = rig.start(shell(f"echo 3/10 epoch 3 > $P2P_PROGRESS; {until}"))
        python = rig.start(program(sys.executable, "-c", code))
        rules = PaceRules(pattern=r"epoch (\d+)/(\d+)")
        printed = rig.start(
            program("sh", "-c", f"printf 'epoch 1/4\\nepoch 2/4\\nepoch 3'; {until}", pace=rules)
        )
        report = await said(rig, file, done=3)
        assert (report.total, report.note) == (10, "epoch 3")
        report = await said(rig, python, done=99_999)
        assert (report.total, report.note) == (200_000, "loop")
        report = await said(rig, printed, done=2)  # the third line isn't whole yet
        assert (report.total, report.note) == (4, "epoch 2/4")
        gate.touch()
        for batch in (file, python, printed):
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario, slots=3)


@process
def test_output_is_a_sign_of_life_and_a_link_in_place_of_the_file_is_not_followed(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("7 7\n")
    rules = PaceRules(heartbeat_ms=1_000)
    script = f"ln -s {secret} $P2P_PROGRESS; for i in 1 2 3; do echo $i; sleep 0.6; done; sleep 60"

    async def scenario(rig: Rig) -> None:
        batch = rig.start(program("sh", "-c", script, pace=rules))
        key = (batch, 0)
        await rig.until(
            lambda: any(
                row.ran_ms - row.quiet_ms > 1_000
                for reports in rig.reports
                if (row := reports.get(key)) is not None
            )
        )
        assert all(reports[key].said_ms is None for reports in rig.reports if key in reports)
        rig.pool.stop(batch, Cause.CANCELLED)

    with_pool(tmp_path, scenario)


@process
@pytest.mark.parametrize("kind", ["function", "program"])
def test_a_task_is_ended_as_stalled_and_the_others_of_its_batch_go_on(
    tmp_path: Path, kind: str
) -> None:
    async def scenario(rig: Rig) -> None:
        if kind == "function":
            gate, never = tmp_path / "gate", tmp_path / "never"
            gate.touch()
            spec = functions("say_and_wait", [(1, str(never)), (2, str(gate))], timeout_ms=60_000)
        else:
            spec = shell("echo 1 > $P2P_PROGRESS; [ $P2P_INDEX = 1 ] || sleep 60", tasks=2)
        batch = rig.start(spec)
        await said(rig, batch, done=1)
        rig.pool.end_task(batch, 1, Cause.STALLED, "not this one")
        rig.pool.end_task(batch, 0, Cause.STALLED, "silent for 9 s")
        outcome = await rig.ended(batch)
        assert outcome.tasks[0].cause is Cause.STALLED
        assert outcome.tasks[0].header["message"] == "silent for 9 s"
        if outcome.unstarted:  # a worker ends with its task
            outcome = await rig.ended(rig.start(spec, TaskSet.of(1, 2)))
        assert outcome.tasks[1].cause is Cause.OK

    with_pool(tmp_path, scenario, slots=1)


@process
def test_a_grace_of_its_own_lets_a_program_end_well(tmp_path: Path) -> None:
    times = TimeLimits(grace_ms=30_000)
    script = "trap 'sleep 1; echo saved; exit 3' TERM; while :; do sleep 0.05; done"

    async def scenario(rig: Rig) -> None:
        spec = program("sh", "-c", script, timeout_ms=500, times=times)
        end = (await rig.run(spec)).tasks[0]
        assert (end.cause, end.header["exit"], end.stdout) == (Cause.TIMEOUT, 3, b"saved\n")
        batch = rig.start(program("sh", "-c", f"echo > {tmp_path}/up; {script}", times=times))
        await rig.until((tmp_path / "up").exists)
        rig.pool.stop(batch, Cause.CANCELLED)
        await rig.ended(batch)
        hasty = program("sh", "-c", script, timeout_ms=500, times=TimeLimits(grace_ms=0))
        assert (await rig.run(hasty)).tasks[0].stdout == b""

    with_pool(tmp_path, scenario)


@process
def test_a_spawner_that_a_pattern_has_caught_is_ended_for_the_limit_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "OVERDUE_S", 0.2)
    rules = PaceRules(pattern="(x+x+)+y")  # takes for ever on a long line of x
    script = "printf 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\n'; sleep 60"

    async def scenario(rig: Rig) -> None:
        end = (await rig.run(program("sh", "-c", script, timeout_ms=1_500, pace=rules))).tasks[0]
        assert end.cause is Cause.TIMEOUT
        assert (await rig.run(shell("echo fine"))).tasks[0].stdout == b"fine\n"

    with_pool(tmp_path, scenario)


@process
def test_a_sent_file_can_not_be_taken_for_a_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start with a dot"):
        SentFile(".p2p-progress", 0o600, b"1 2")


def test_lines_and_matches_are_read_as_people_write_them() -> None:
    assert open_line("3\n4") == (3, None, "")
    assert open_line(" 3 10  half way ") == (3, 10, "half way")
    assert open_line("3/10") == open_line("3 / 10") == (3, 10, "")
    assert open_line("45% warm") == (45, 100, "warm")
    assert open_line("3 epochs") == (3, None, "epochs")
    assert open_line("2.5 1000") == (2.5, 1000, "")
    for text in ("", "\n", "epoch 3", "-1 3", "3x"):
        assert open_line(text) is None
    named = re.search(r"(?P<percent>\d+)%", "at 40%")
    assert named is not None
    assert open_match(named) == (40, 100, "40%")
    swapped = re.search(r"of (?P<total>\d+): (?P<done>\d+)", "of 9: 4")
    assert swapped is not None
    assert open_match(swapped) == (4, 9, "of 9: 4")
    odd = re.search(r"(\w+)", "epoch")
    assert odd is not None
    assert open_match(odd) is None


def test_outside_of_a_task_it_does_nothing_and_nonsense_is_a_plain_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("P2P_PROGRESS", raising=False)
    teller = Teller()
    teller.progress(1, 2, "fine")
    heard: list[tuple[float, float, bytes]] = []
    teller.sink = lambda done, total, note: heard.append((done, total, note))
    teller.progress(1, 2, "é" * 200)
    assert heard[0][:2] == (1.0, 2.0)
    assert len(heard[0][2]) == NOTE_BYTES_MAX
    with pytest.raises(ValueError, match="could not convert"):
        teller.progress("much")  # type: ignore[arg-type]  # as a user may


@pytest.mark.parametrize("pattern", ["epoch", "(", "(x)" * 100])
def test_a_pattern_that_says_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern for progress|regular expression"):
        PaceRules(pattern=pattern)
