"""Tasks that move from an owner to another peer: what the ledger lets through and what it keeps."""

from __future__ import annotations

import random
from typing import Final

import pytest

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.moving import MOVES_MAX, PAIRS_MAX
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Completed,
    Drain,
    DrainMode,
    Envelope,
    Event,
    Granted,
    KeptGrant,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    RaiseLevel,
    Rejected,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.moves import Moved, Transfer
from p2psched.model.retry import NO_DELAY, RetryPolicy, RetryRule
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.facts import facts_of
from p2psched.testing.shadow import Shadow

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
JOB = JobId("job")
TEN = TaskSet.of(0, 10)
END: Final = TaskSet.of(6, 10)


def up(peer: PeerId, incarnation: int = 1, **more: object) -> PeerUp:
    info = PeerInfo(peer, incarnation, peer, "", 0, 2, "", "", KNOWN_LEVEL)
    return PeerUp(info, **more)  # type: ignore[arg-type]  # `kept` and `continues`


class Ledger:
    """A machine, and the naive reading of the same commands beside it."""

    def __init__(
        self,
        *,
        level: int = KNOWN_LEVEL,
        hold: Hold | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.machine = Machine()
        self.shadow = Shadow()
        self.events: list[Event] = []
        self._number = 0
        for peer in (A, B, C):
            self.do(up(peer))
        self.do(RaiseLevel(level))
        spec = JobSpec("j", TEN, ProgramWork(("true",)), hold=hold, retry=retry)
        self.do(SubmitJob(JOB, spec))

    def do(self, command: Command, proposer: PeerId = C, request: int | None = None) -> Outcome:
        self._number += 1
        number = self._number if request is None else request
        batch = Committed(self._number, self._number, 0, (Envelope(proposer, number, command),))
        (outcome,), stamped = self.machine.apply(batch)
        self.events = [one.event for one in stamped]
        said = self.shadow.apply(command, (proposer, number), stamp_ms=self._number)
        assert facts_of(stamped) == said
        for job in self.machine.jobs.values():
            job.check()
        return outcome

    def place(self, peer: PeerId, tasks: TaskSet = TEN) -> int:
        placed = self.do(Place(JOB, tasks, peer, 1))
        assert isinstance(placed, Placed)
        return placed.grant

    def move(
        self,
        grant: int,
        tasks: TaskSet = END,
        to: PeerId = B,
        incarnation: int = 1,
        *,
        by: PeerId = A,
        request: int | None = None,
    ) -> Placed:
        moved = self.do(Transfer(JOB, grant, tasks, to, incarnation), by, request)
        assert isinstance(moved, Placed)
        return moved

    def complete(
        self, grant: int, tasks: TaskSet, by: PeerId, cause: Cause = Cause.OK
    ) -> Completed:
        start, stop = tasks.ranges[0]
        segment = Segment(start, stop, cause, chunks.pack([b"x"] * len(tasks)), 1_000)
        outcome = self.do(Complete(JOB, grant, (segment,)), by)
        assert isinstance(outcome, Completed)
        return outcome

    def owned(self, peer: PeerId) -> int:
        return self.machine.peers[peer].owned


def test_nothing_moves_to_where_it_ended_badly_if_it_shall_run_elsewhere() -> None:
    for elsewhere in (True, False):
        rule = RetryRule(Cause.EXIT, 3, NO_DELAY, elsewhere=elsewhere)
        ledger = Ledger(retry=RetryPolicy((rule,)))
        ledger.complete(ledger.place(B, TaskSet.of(8, 10)), TaskSet.of(8, 10), B, Cause.EXIT)
        old = ledger.place(A)
        assert ledger.move(old).tasks == (TaskSet.of(6, 8) if elsewhere else END)
        assert ledger.move(old, to=C).tasks == (TaskSet.of(8, 10) if elsewhere else EMPTY)


def test_what_an_owner_gives_is_granted_to_the_other_under_a_newer_grant() -> None:
    ledger = Ledger()
    old = ledger.place(A)
    moved = ledger.move(old)
    assert (moved.tasks, moved.grant) == (END, ledger.machine.command_index)
    assert ledger.events == [
        Moved(JOB, old, A, END, moved.grant, B),
        Granted(JOB, moved.grant, B, 1, END),
    ]
    assert (ledger.owned(A), ledger.owned(B)) == (6, 4)
    job = ledger.machine.jobs[JOB]
    assert (job.moved, job.moved_count) == (((A, B, 4),), 4)
    assert (job.attempts_lost, job.attempts_failed) == (0, 0)
    assert ledger.complete(old, END, A).stale == END  # whoever ran it all the same comes too late
    assert ledger.complete(moved.grant, END, B).accepted == END
    assert ledger.complete(old, TEN - END, A).accepted == TEN - END
    assert job.ended


def test_only_what_is_still_under_the_grant_moves() -> None:
    ledger = Ledger()
    old = ledger.place(A)
    ledger.complete(old, TaskSet.of(8, 10), A)
    assert ledger.move(old).tasks == TaskSet.of(6, 8)
    assert ledger.move(old).tasks == EMPTY
    assert ledger.events == []


@pytest.mark.parametrize(
    ("by", "to", "incarnation"), [(B, C, 1), (C, B, 1), (A, A, 1), (A, B, 2), (A, PeerId("x"), 1)]
)
def test_nobody_but_the_owner_gives_and_nobody_but_a_live_peer_takes(
    by: PeerId, to: PeerId, incarnation: int
) -> None:
    ledger = Ledger()
    old = ledger.place(A)
    assert ledger.move(old, to=to, incarnation=incarnation, by=by).tasks == EMPTY
    assert ledger.owned(A) == 10


def test_nothing_moves_to_who_is_drained_or_down_nor_from_who_is_down() -> None:
    ledger = Ledger()
    old = ledger.place(A)
    ledger.do(Drain(B, DrainMode.ON))
    assert ledger.move(old).tasks == EMPTY
    ledger.do(PeerDown(C, 1, ""))
    assert ledger.move(old, to=C).tasks == EMPTY
    ledger.do(Drain(B, DrainMode.OFF))
    ledger.do(PeerDown(A, 1, ""))
    assert ledger.move(old).tasks == EMPTY
    ledger.do(up(A, 2, kept=(KeptGrant(JOB, old, TEN),), continues=1))
    assert ledger.move(old).tasks == END  # the same process, and it gives still


def test_a_grant_of_a_process_that_ended_gives_nothing() -> None:
    ledger = Ledger()
    old = ledger.place(A)
    ledger.do(up(A, 2))
    assert ledger.move(old).tasks == EMPTY
    assert ledger.machine.jobs[JOB].waiting == TEN


def test_a_move_that_was_refused_once_does_not_happen_later() -> None:
    """Its owner has heard of the refusal, and runs the tasks."""
    ledger = Ledger()
    old = ledger.place(A)
    ledger.do(Drain(B, DrainMode.ON))
    assert ledger.move(old, request=77).tasks == EMPTY
    ledger.do(Drain(B, DrainMode.OFF))
    assert ledger.move(old, request=77).tasks == EMPTY
    assert ledger.owned(A) == 10


def test_what_was_cancelled_or_holds_a_lock_does_not_move() -> None:
    ledger = Ledger()
    old = ledger.place(A)
    ledger.do(Cancel(JOB))
    assert ledger.move(old).tasks == EMPTY
    locked = Ledger(hold=Hold("l", capacity=10))
    assert locked.move(locked.place(A)).tasks == EMPTY


def test_suspects_do_not_move_and_nothing_moves_to_who_has_one() -> None:
    ledger = Ledger()
    one = TaskSet.of(0, 1)
    for incarnation in (1, 2):
        ledger.do(Place(JOB, one, A, incarnation))
        ledger.do(up(A, incarnation + 1))
    ledger.do(Place(JOB, one, A, 3))
    suspect = ledger.machine.command_index
    assert ledger.machine.peers[A].suspects == 1
    assert ledger.move(suspect, one).tasks == EMPTY
    other = ledger.place(B, TEN - one)
    assert ledger.move(other, END, to=A, incarnation=3, by=B).tasks == EMPTY
    assert ledger.move(other, END, to=C, by=B).tasks == END


def test_a_task_moves_only_so_often_until_it_is_placed_anew() -> None:
    ledger = Ledger()
    grant = ledger.place(A)
    peers = [A, B]
    for number in range(MOVES_MAX):
        moved = ledger.move(grant, to=peers[1 - number % 2], by=peers[number % 2])
        assert moved.tasks == END
        grant = moved.grant
    assert ledger.move(grant, to=B, by=A).tasks == EMPTY


def test_who_gave_to_whom_is_kept_for_some_pairs_and_the_sum_for_all() -> None:
    ledger = Ledger()
    job = ledger.machine.jobs[JOB]
    job.moved = tuple((PeerId(f"{n}"), B, 1) for n in range(PAIRS_MAX - 1))
    for tasks, to in ((TaskSet.of(8, 10), B), (TaskSet.of(6, 8), B), (TaskSet.of(4, 6), C)):
        grant = next((g for g, held in job.grants.items() if held.peer == A), None)
        ledger.move(grant or ledger.place(A), tasks, to=to)
    assert len(job.moved) == PAIRS_MAX
    assert (job.moved[-1], job.moved_count) == ((A, B, 4), 6)


def test_a_move_is_in_the_snapshot() -> None:
    ledger = Ledger()
    moved = ledger.move(ledger.place(A))
    again = Machine()
    restore_machine(again, encode_machine(ledger.machine))
    assert again.dump() == ledger.machine.dump()
    job = again.jobs[JOB]
    assert (job.grants[moved.grant].moves, job.moved) == (1, ((A, B, 4),))


def test_nothing_moves_before_all_peers_know_of_it() -> None:
    ledger = Ledger(level=4)
    outcome = ledger.do(Transfer(JOB, ledger.place(A), END, B, 1), A)
    assert isinstance(outcome, Rejected)
    assert ledger.owned(A) == 10


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_naive_reading_says_the_same(seed: int) -> None:
    rng = random.Random(seed)
    ledger = Ledger()
    moved = 0
    for _ in range(80):
        job = ledger.machine.jobs[JOB]
        start = rng.randrange(10)
        tasks = TaskSet.of(start, rng.randint(start + 1, 10))
        peer = rng.choice((A, B, C))
        row = ledger.machine.peers[peer]
        incarnation = row.info.incarnation - (rng.random() < 0.1)
        held = rng.choice(list(job.grants.values())) if job.grants else None
        match rng.randrange(8):
            case 0 | 1 if not job.ended:
                ledger.do(Place(JOB, tasks, peer, incarnation))
            case 2 | 3 | 4 if held is not None:
                by = held.peer if rng.random() < 0.9 else peer
                number = rng.choice((None, rng.randrange(100_000, 100_004)))
                move = Transfer(JOB, held.grant, tasks, peer, incarnation)
                moved += bool(ledger.do(move, by, number) != Placed(0, EMPTY))
            case 5:
                ledger.do(Drain(peer, rng.choice(list(DrainMode))))
            case 6 if row.live:
                ledger.do(PeerDown(peer, row.info.incarnation, "", rng.random() < 0.8))
            case _:
                kept = tuple(KeptGrant(JOB, g, h.tasks) for g, h in job.grants.items())
                continues = row.info.incarnation if rng.random() < 0.7 else 0
                ledger.do(up(peer, row.info.incarnation + 1, kept=kept, continues=continues))
    assert moved
