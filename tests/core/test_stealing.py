"""An owner that gives and a peer that asks, around one ledger."""

from __future__ import annotations

import pytest

from p2psched.core.feed import Say
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.owner import StartBatch, TakeBack
from p2psched.core.owner_view import OVERDUE_MS
from p2psched.core.scheduler import (
    Applied,
    CoordinatorChanged,
    Executed,
    Followed,
    Renewed,
    RenewIncarnation,
    Restored,
    Round,
    Scheduler,
    SchedulerEffect,
)
from p2psched.core.snapshot import encode_machine
from p2psched.core.stealing import MOVES_MAX, TAKE_BACK_MS
from p2psched.model import chunks
from p2psched.model.commands import (
    Cancel,
    Command,
    Drain,
    DrainMode,
    Envelope,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    RaiseLevel,
    SubmitJob,
)
from p2psched.model.execution import Batch, Committed, Ended, GaveBack, Progress, TakenBack
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.moves import Transfer
from p2psched.model.needs import NOTHING
from p2psched.model.steal_messages import Gives, Steal
from p2psched.model.taskset import EMPTY, TaskSet

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
JOB = JobId("job")
TEN = TaskSet.of(0, 10)
END = TaskSet.of(6, 10)  # half of what two slots leave in the queue


def info(peer: PeerId, incarnation: int = 1, slots: int = 2) -> PeerInfo:
    return PeerInfo(peer, incarnation, peer, f"{peer}:1", 0, slots, "0", "3", KNOWN_LEVEL)


class Pair:
    """Victim a and thief b, with the effects of each, over a ledger that a test commits to."""

    def __init__(self, level: int = KNOWN_LEVEL) -> None:
        self.machine, self.job = Machine(), JOB
        self.now_ms = 1_000
        self.peers: dict[PeerId, Scheduler] = {}
        self.effects: dict[PeerId, list[SchedulerEffect]] = {A: [], B: []}
        self._number = 0
        for peer in (A, B, C):
            self.commit(PeerUp(info(peer)))
        self.commit(RaiseLevel(level))
        for peer in (A, B):
            self.peers[peer] = Scheduler(info(peer))
            self.peers[peer].step(Restored(self.now_ms, encode_machine(self.machine)))
        self.commit(SubmitJob(JOB, JobSpec("j", TEN, ProgramWork(("true",)))))
        self.commit(Place(JOB, TEN, A, 1))
        self.grant = self.machine.command_index
        self.turn(A)

    def commit(self, *commands: Command) -> Outcome:
        return self.commit_all(*(Envelope(C, 10_000 + n, c) for n, c in enumerate(commands)))

    def commit_all(self, *envelopes: Envelope) -> Outcome:
        self._number += 1
        numbered = tuple(
            Envelope(e.proposer, e.request + self._number * 100, e.command)
            if e.proposer == C
            else e
            for e in envelopes
        )
        batch = Committed(self._number, self._number, 0, numbered)
        outcomes, _ = self.machine.apply(batch)
        for peer, scheduler in self.peers.items():
            self.effects[peer] += scheduler.step(Applied(self.now_ms, (batch,)))
        return outcomes[-1]

    def turn(self, peer: PeerId) -> list[SchedulerEffect]:
        found = self.peers[peer].step(Round(self.now_ms))
        self.effects[peer] += found
        return found

    def ask(self, incarnation: int = 1, number: int = 1, thief: PeerId = B) -> Gives:
        """What a says to who asks."""
        asked = Steal(number, incarnation, 2)
        self.peers[A].step(Followed(self.now_ms, thief, asked))
        said = [e for e in self.turn(A) if isinstance(e, Say)]
        (answer,) = [say.message for say in said if isinstance(say.message, Gives)]
        return answer

    @property
    def moves(self) -> list[Envelope]:
        """Proposed by a so far."""
        return [
            envelope
            for effect in self.effects[A]
            for envelope in getattr(effect, "envelopes", ())
            if isinstance(envelope.command, Transfer)
        ]

    def started(self, peer: PeerId) -> TaskSet:
        batches = [e.batch for e in self.effects[peer] if isinstance(e, StartBatch)]
        return TaskSet.union(batch.tasks for batch in batches)

    def held(self, peer: PeerId) -> TaskSet:
        return TaskSet.union(kept.tasks for kept in self.peers[peer].owner.kept())


def test_who_has_nothing_asks_and_gets_half_of_what_waits() -> None:
    pair = Pair()
    (say,) = [e for e in pair.turn(B) if isinstance(e, Say)]
    assert (say.to, say.message) == (A, Steal(1, 1, 2))
    assert pair.turn(B) == [], "one request at a time"
    gives = pair.ask()
    assert gives.count == len(END)
    (move,) = pair.moves
    assert move.command == Transfer(JOB, pair.grant, END, B, 1)
    pair.commit_all(move)
    pair.turn(B)
    pair.turn(A)
    assert pair.held(A) == TEN - END
    assert pair.held(B) == END
    assert not pair.started(A) & END
    assert pair.started(B) == TaskSet.of(6, 8)
    assert pair.peers[B].owner.moved_here == len(END)
    assert list(pair.peers[B].stealing.thief.round_trips_ms) == [0]


def test_what_is_on_its_way_is_held_and_started_by_nobody() -> None:
    pair = Pair()
    pair.ask()
    for _ in range(3):
        pair.turn(A)
    assert pair.held(A) == TEN
    assert not pair.started(A) & END
    assert len(pair.moves) == 1


def test_what_could_not_move_is_next() -> None:
    pair = Pair()
    pair.commit(Drain(B, DrainMode.ON))
    pair.ask()
    assert pair.commit_all(*pair.moves) != Placed(0, END)
    assert pair.held(A) == TEN
    assert pair.peers[A].owner.departing.stayed == len(END)
    first = pair.peers[A].owner.lots(B, 2, NOTHING)[0]
    assert first.tasks == len(END)


def test_a_repeat_that_says_nothing_moved_is_not_believed() -> None:
    """The first outcome was in a snapshot."""
    pair = Pair()
    pair.ask()
    (move,) = pair.moves
    batch = Committed(pair.machine.applied_index + 1, 0, 0, (move,))
    pair.machine.apply(batch)
    pair.peers[A].step(Restored(pair.now_ms, encode_machine(pair.machine)))
    repeat = Committed(batch.index + 1, 0, 0, (move,))
    pair.machine.apply(repeat)
    pair.peers[A].step(Applied(pair.now_ms, (repeat,)))
    pair.turn(A)
    assert pair.held(A) == TEN - END
    assert not pair.started(A) & END


def test_a_job_that_is_cancelled_meanwhile_leaves_nothing() -> None:
    pair = Pair()
    pair.ask()
    pair.commit(Cancel(JOB))
    pair.commit_all(*pair.moves)
    pair.turn(A)
    assert pair.peers[A].owner.departing.moves == 0
    assert not pair.peers[A].owner.has_queue


def test_an_owner_that_is_declared_down_keeps_what_is_on_its_way() -> None:
    pair = Pair()
    pair.ask()
    pair.commit(PeerDown(A, 1, "not heard"))
    assert any(isinstance(e, RenewIncarnation) for e in pair.effects[A])
    pair.effects[A] += pair.peers[A].step(Renewed(pair.now_ms, 2))
    pair.turn(A)
    ups = [
        envelope
        for effect in pair.effects[A]
        for envelope in getattr(effect, "envelopes", ())
        if isinstance(envelope.command, PeerUp)
    ]
    assert TaskSet.union(kept.tasks for kept in ups[-1].command.kept) == TEN
    pair.commit_all(ups[-1])
    pair.commit_all(*pair.moves)
    pair.turn(A)
    assert pair.held(A) == TEN - END
    assert pair.machine.peers[B].owned == len(END)


def test_what_is_asked_for_by_many_is_given_to_a_few_at_a_time() -> None:
    pair = Pair()
    answers = [pair.ask(number=number) for number in range(1, 20)]
    assert sum(answer.count for answer in answers) < len(TEN)
    assert len(pair.moves) <= MOVES_MAX
    assert answers[-1].count == 0
    assert answers[-1].again_ms > 0


@pytest.mark.parametrize("level", [4])
def test_nobody_asks_or_gives_before_all_peers_know_of_it(level: int) -> None:
    pair = Pair(level)
    assert not [e for e in pair.turn(B) if isinstance(e, Say)]
    assert pair.ask().count == 0


def test_a_drained_peer_neither_asks_nor_gives() -> None:
    pair = Pair()
    pair.commit(Drain(B, DrainMode.ON))
    assert not [e for e in pair.turn(B) if isinstance(e, Say)]
    pair.commit(Drain(A, DrainMode.ON))
    assert pair.ask().count == 0


def test_a_peer_whose_disk_is_full_asks_for_nothing_for_a_while() -> None:
    pair = Pair()
    thief = pair.peers[B]
    full = Segment(0, 1, Cause.NO_SPACE, chunks.pack([b""]))
    thief.step(Executed(pair.now_ms, Progress(1, (full,))))
    assert not [e for e in pair.turn(B) if isinstance(e, Say)]
    pair.now_ms += 10_000
    assert [e for e in pair.turn(B) if isinstance(e, Say)]


def test_what_shall_run_elsewhere_is_not_offered_to_who_failed_it() -> None:
    pair = Pair()
    lots = pair.peers[A].owner.lots
    assert any(lot.may_go for lot in lots(B, 2, NOTHING))
    job = pair.peers[A].machine.jobs[JOB]
    job.avoids[B] = TaskSet.of(9, 10)
    assert not any(lot.may_go for lot in lots(B, 2, NOTHING))
    assert any(lot.may_go for lot in lots(C, 2, NOTHING))


def test_what_begun_once_under_its_grant_is_given_to_nobody() -> None:
    pair = Pair()
    assert pair.started(B) == EMPTY
    owner = pair.peers[A].owner
    for queued in owner._queue:
        queued.begun = True
    assert pair.ask().count == 0
    assert pair.moves == []


def test_while_tasks_wait_to_be_pulled_the_coordinator_is_asked_and_gives_to_who_asks() -> None:
    pair = Pair()
    pulled = JobId("pulled")
    pair.commit(Cancel(JOB))
    spec = JobSpec("p", TEN, ProgramWork(("true",)), policy="pull")
    pair.commit(SubmitJob(pulled, spec))
    for peer in (A, B):
        pair.peers[peer].step(CoordinatorChanged(pair.now_ms, A, peer == A))
    pair.turn(A)
    assert not placed_on_b(pair)
    (say,) = [e for e in pair.turn(B) if isinstance(e, Say) and isinstance(e.message, Steal)]
    assert say.to == A
    assert isinstance(say.message, Steal)
    pair.peers[A].step(Followed(pair.now_ms, B, say.message))
    pair.turn(A)
    ((place, command),) = placed_on_b(pair)
    assert command.job == pulled
    assert 0 < len(command.tasks) < len(TEN)
    pair.commit_all(place)
    pair.turn(B)
    assert pair.started(B)


def placed_on_b(pair: Pair) -> list[tuple[Envelope, Place]]:
    """Proposed by a so far."""
    return [
        (envelope, envelope.command)
        for effect in pair.effects[A]
        for envelope in getattr(effect, "envelopes", ())
        if isinstance(envelope.command, Place) and envelope.command.peer == B
    ]


def test_a_peer_that_runs_nothing_gives_nothing_whoever_asks() -> None:
    pair = Pair()
    holder = Scheduler(info(C, slots=0))
    holder.step(Restored(pair.now_ms, encode_machine(pair.machine)))
    holder.step(Followed(pair.now_ms, B, Steal(3, 1, 2)))
    (say,) = [e for e in holder.step(Round(pair.now_ms)) if isinstance(e, Say)]
    assert isinstance(say.message, Gives)
    assert (say.to, say.message.number, say.message.count) == (B, 3, 0)


def test_what_waits_behind_tasks_that_take_longer_than_expected_is_given() -> None:
    pair = Pair()
    pair.peers[A].machine.jobs[JOB].estimate_us = 1
    assert pair.ask().count == 0
    pair.now_ms += 1_000
    assert pair.ask(number=2).count > 0


def asks(pair: Pair, number: int = 1) -> list[SchedulerEffect]:
    pair.peers[A].step(Followed(pair.now_ms, B, Steal(number, 1, 2)))
    return [e for e in pair.turn(A) if isinstance(e, Say | TakeBack)]


def all_handed_over() -> tuple[Pair, list[Batch]]:
    """Nothing waits with the owner: its executor has it all, and has begun the first of each."""
    pair = Pair()
    a = pair.peers[A]
    first = [e.batch for e in pair.effects[A] if isinstance(e, StartBatch)]
    for batch in first:
        (start, stop) = batch.tasks.ranges[0]
        segment = Segment(start, stop, Cause.OK, chunks.pack([b""]), 4_000)
        a.step(Executed(pair.now_ms, Progress(batch.id, (segment,))))
        a.step(Executed(pair.now_ms, Ended(batch.id, EMPTY)))
    pair.turn(A)
    batches = [e.batch for e in pair.effects[A] if isinstance(e, StartBatch)][len(first) :]
    assert sum(len(batch.tasks) for batch in batches) == len(TEN) - len(first)
    return pair, batches


def test_a_little_that_should_be_over_is_little_no_more() -> None:
    """Else two whose tasks take long, against all expectation, take from each other in turns (seed
    980476)."""
    pair, (*first, _, _) = all_handed_over()
    a = pair.peers[A]
    for batch in first:
        ((start, stop),) = batch.tasks.ranges
        data = chunks.pack([b""] * (stop - start))
        segment = Segment(start, stop, Cause.OK, data, 4_000 * (stop - start))
        a.step(Executed(pair.now_ms, Progress(batch.id, (segment,))))
        a.step(Executed(pair.now_ms, Ended(batch.id, EMPTY)))
    pair.turn(A)
    assert len(a.owner.batches) == 2, "on two slots"
    assert a.owner.is_hungry(pair.now_ms + OVERDUE_MS - 1)
    assert not a.owner.is_hungry(pair.now_ms + OVERDUE_MS)


def test_what_the_executor_has_not_begun_is_taken_back_for_a_thief_and_given() -> None:
    pair, batches = all_handed_over()
    assert [type(effect) for effect in asks(pair)] == [TakeBack]
    assert not pair.moves, "it waits for what comes back"
    a = pair.peers[A]
    begun = TaskSet.union(batch.tasks.take(1) for batch in batches[:2])
    for batch in reversed(batches):
        rest = batch.tasks - begun
        said = Ended(batch.id, rest) if rest == batch.tasks else GaveBack(batch.id, rest)
        a.step(Executed(pair.now_ms, said))
    a.step(Executed(pair.now_ms, TakenBack()))
    (say,) = [e for e in pair.turn(A) if isinstance(e, Say)]
    assert isinstance(say.message, Gives)
    assert say.message.count > 0
    (move,) = pair.moves
    assert isinstance(move.command, Transfer)
    assert not move.command.tasks & begun, "what has begun stays"
    again = [e.batch for e in pair.effects[A] if isinstance(e, StartBatch)][-1]
    assert (again.grant, again.attempt) == (batches[0].grant, batches[0].attempt)


def test_if_nothing_comes_back_a_thief_is_told_so_and_it_is_not_asked_again_at_once() -> None:
    pair, _ = all_handed_over()
    assert [type(effect) for effect in asks(pair)] == [TakeBack]
    pair.peers[A].step(Executed(pair.now_ms, TakenBack()))
    (say,) = [e for e in pair.turn(A) if isinstance(e, Say)]
    assert isinstance(say.message, Gives)
    assert say.message.count == 0
    assert [type(effect) for effect in asks(pair, 2)] == [Say]
    pair.now_ms += TAKE_BACK_MS
    assert [type(effect) for effect in asks(pair, 3)] == [TakeBack]


def test_what_was_revoked_meanwhile_does_not_come_back() -> None:
    pair, batches = all_handed_over()
    asks(pair)
    pair.commit(Cancel(JOB))
    pair.peers[A].step(Executed(pair.now_ms, GaveBack(batches[0].id, batches[0].tasks)))
    pair.peers[A].step(Executed(pair.now_ms, TakenBack()))
    pair.turn(A)
    assert not pair.peers[A].owner.has_queue
    assert not pair.moves
