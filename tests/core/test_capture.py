"""A capture is the state of its moment, whatever happens before it is whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import capture, state
from p2psched.core.capture import Capture
from p2psched.core.machine import Machine
from p2psched.core.snapshot import MachineImage, encode_machine, restore_machine
from p2psched.model.commands import Command, Envelope, PeerInfo, PeerUp, Pin, RaiseLevel, SubmitJob
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim_jobs import sim_job
from tests.core.test_machine import P
from tests.core.test_machine_sequences import COMMANDS, SETUP
from tests.core.test_snapshot import history


class Fold:
    """A machine that says to a capture what it will apply, and is wrong about nothing else."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.number = 0

    def do(self, command: Command, capture: Capture | None = None) -> None:
        self.number += 1
        batch = Committed(self.number, self.number, 0, (Envelope(P, self.number, command),))
        if capture is not None:
            capture.before([batch])
        self.machine.apply(batch)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "SLICE_JOBS", 1)
    monkeypatch.setattr(state, "ENDED_WHOLE_MAX", 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(COMMANDS, max_size=25), st.lists(COMMANDS, max_size=25), st.integers(0, 4))
def test_whatever_is_applied_meanwhile_the_bytes_are_those_of_the_start(
    before: list[Command], meanwhile: list[Command], pieces_first: int
) -> None:
    fold = Fold()
    for command in (*SETUP, *before):
        fold.do(command)
    wanted = encode_machine(fold.machine)
    taken = Capture(fold.machine)
    pieces, found = taken.pieces(), []
    for number, command in enumerate(meanwhile):
        if number >= pieces_first:
            found.append(next(pieces, b""))
        fold.do(command, taken)
    assert b"".join([*found, *pieces]) == wanted


@pytest.mark.parametrize("seed", range(3))
def test_what_a_cluster_went_through_can_be_captured_at_any_entry(seed: int) -> None:
    batches = history(seed)
    for start in range(0, len(batches), 3):
        machine = Machine()
        for batch in batches[:start]:
            machine.apply(batch)
        wanted = encode_machine(machine)
        taken = Capture(machine)
        pieces = taken.pieces()
        found = [next(pieces)]
        for batch in batches[start:]:
            taken.before([batch])
            machine.apply(batch)
            found.append(next(pieces, b""))
        assert b"".join([*found, *pieces]) == wanted


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_any_number_of_jobs_is_written_as_the_codec_writes_it(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "SLICE_JOBS", 500)
    fold = Fold()
    fold.do(PeerUp(PeerInfo(P, 1, "p", "a:1", 0, 1, "0", "3")))
    spec = sim_job(TaskSet.of(0, 1), mean_us=1)
    for number in range(count):
        fold.do(SubmitJob(JobId(f"job-{number}"), spec))
    wanted = encode_machine(fold.machine)
    assert b"".join(Capture(fold.machine).pieces()) == wanted
    again = Machine()
    restore_machine(again, wanted)
    assert len(again.jobs) == count


def test_a_piece_holds_a_bounded_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "SLICE_JOBS", 10)
    fold = Fold()
    for number in range(95):
        fold.do(SubmitJob(JobId(f"job-{number}"), sim_job(TaskSet.of(0, 1), mean_us=1)))
    pieces = list(Capture(fold.machine).pieces())
    assert len(pieces) == 1 + 10 + len(MachineImage.__struct_fields__) - 1


def test_a_capture_lets_go_of_what_it_has_told() -> None:
    fold = Fold()
    for number in range(20):
        fold.do(SubmitJob(JobId(f"job-{number}"), sim_job(TaskSet.of(0, 1), mean_us=1)))
    taken = Capture(fold.machine)
    pieces = taken.pieces()
    for number in range(20):
        fold.do(Pin(JobId(f"job-{number}"), pinned=True), taken)
    fold.do(RaiseLevel(1), taken)
    assert len(taken._early) == 20
    assert list(pieces)
    assert not taken._early
    assert not taken._left
