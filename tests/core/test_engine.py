"""The engine around Raft: proposals into entries, entries out, reads."""

from __future__ import annotations

import random
from typing import TypeVar

import msgspec
import pytest

from p2psched.core.raft.effects import (
    AddMember,
    Persist,
    Receive,
    RemoveMember,
    Send,
    Synced,
    Tick,
)
from p2psched.core.raft.engine import (
    READ_PATIENCE_MS,
    CoordinatorIs,
    Deliver,
    EngineEffect,
    EngineEvent,
    Forwarded,
    RaftEngine,
    ReadAnswered,
    Round,
    SendForward,
    found_cluster,
)
from p2psched.core.raft.together import ENTRIES_IN_FLIGHT_MAX, TOGETHER_MIN, TOGETHER_MS
from p2psched.model.commands import Cancel, Envelope, Place, SubmitJob
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.limits import ENTRY_BYTES_WITH_PLACES_MAX, PROPOSED_BYTES_MAX
from p2psched.model.messages import Forward
from p2psched.model.raft import Append, EntryKind, HardState, ReadAsk, ReadReply
from p2psched.model.taskset import TaskSet
from p2psched.net.frames import encode
from tests.core.rig import TIMING, founding, member

ME = PeerId("a")
E = TypeVar("E")


class Driver:
    """An engine whose disk syncs at once."""

    def __init__(self, voters: str = "a", seed: int = 1) -> None:
        hard_state, entries = HardState(1, None), [founding(voters)]
        if voters == "a":
            hard_state, entry = found_cluster(member("a"), 0, 0)
            entries = [entry]
        self.engine = RaftEngine(
            me=ME,
            rng=random.Random(seed),
            timing=TIMING,
            hard_state=hard_state,
            entries=entries,
            now_ms=0,
            decorate=lambda envelopes: envelopes,
        )
        self.syncs = True
        self.seen: list[EngineEffect] = []

    def step(self, event: EngineEvent) -> None:
        for effect in self.engine.step(event):
            self.seen.append(effect)
            if isinstance(effect, Persist) and self.syncs:
                self.step(Synced(0, effect.token))

    def round(self, now_ms: int = 0) -> None:
        self.step(Round(now_ms, 0))
        while self.engine.wants_round:
            self.step(Round(now_ms, 0))

    def of(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.seen if isinstance(effect, kind)]


def envelope(number: int) -> Envelope:
    return Envelope(ME, number, Cancel(JobId(f"job-{number}")))


def leading() -> Driver:
    driver = Driver()
    driver.step(Tick(0, 0))
    driver.round()
    driver.seen.clear()
    return driver


def following() -> Driver:
    driver = Driver("abc")
    driver.step(Receive(0, PeerId("b"), Append(2, 1, 1, 0, 1)))
    driver.seen.clear()
    return driver


def test_a_coordinator_speaks_only_after_everything_older_was_delivered() -> None:
    driver = Driver()
    driver.step(Tick(0, 0))
    driver.round()
    kinds = [type(effect) for effect in driver.seen]
    assert kinds.index(Deliver) < kinds.index(CoordinatorIs)
    assert driver.of(CoordinatorIs) == [CoordinatorIs(ME, is_self=True)]


def test_proposals_of_one_turn_become_one_entry() -> None:
    driver = leading()
    driver.engine.append([envelope(1), envelope(2)])
    driver.engine.append([envelope(3)])
    driver.round()
    (delivered,) = driver.of(Deliver)
    assert [e.request for e in delivered.batches[0].envelopes] == [1, 2, 3]


def test_of_too_many_bytes_at_once_the_newest_are_dropped_and_a_repeat_gets_through() -> None:
    driver = leading()
    large = JobSpec("x", TaskSet.of(0, 1), ProgramWork(("true", "y" * 500_000)))
    count = PROPOSED_BYTES_MAX // 500_000 + 10
    jobs = [Envelope(ME, n, SubmitJob(JobId(f"job-{n}"), large)) for n in range(count)]
    driver.engine.append(jobs)
    driver.round()
    taken = sum(len(b.envelopes) for d in driver.of(Deliver) for b in d.batches)
    assert PROPOSED_BYTES_MAX <= taken * 501_000 <= PROPOSED_BYTES_MAX + 1_002_000
    driver.engine.append(jobs[taken:])
    driver.round()
    requests = {e.request for d in driver.of(Deliver) for b in d.batches for e in b.envelopes}
    assert requests == set(range(count))


@pytest.mark.parametrize("added", [0, 1, 40])
def test_an_entry_is_its_envelopes_encoded_together(added: int) -> None:
    driver = leading()
    proposals = tuple(map(envelope, range(20)))
    places = tuple(map(envelope, range(100, 100 + added)))
    driver.engine._decorate = lambda envelopes: (*envelopes, *places)
    driver.engine.append(proposals)
    driver.round()
    (persist,) = driver.of(Persist)
    assert persist.entries[0].payload == msgspec.msgpack.encode((*proposals, *places))
    (delivered,) = driver.of(Deliver)
    assert delivered.batches[0].envelopes == (*proposals, *places)


def test_proposals_wait_while_enough_entries_are_in_flight() -> None:
    driver = leading()
    driver.syncs = False
    for number in range(10):
        driver.engine.append(many(number))
        driver.step(Round(0, 0))
    persisted = driver.of(Persist)
    assert len(persisted) == ENTRIES_IN_FLIGHT_MAX
    driver.step(Synced(0, persisted[-1].token))
    driver.syncs = True
    driver.round()
    batches = [batch for delivered in driver.of(Deliver) for batch in delivered.batches]
    assert [e.request for b in batches for e in b.envelopes] == list(range(10 * TOGETHER_MIN))
    assert len(batches) == ENTRIES_IN_FLIGHT_MAX + 1


def many(number: int) -> list[Envelope]:
    """Enough for an entry whatever is in flight."""
    return [envelope(number * TOGETHER_MIN + place) for place in range(TOGETHER_MIN)]


def test_a_few_proposals_wait_for_the_commit_before_them_and_leave_together() -> None:
    driver = leading()
    driver.syncs = False
    for number in range(4):
        driver.engine.append([envelope(number)])
        driver.step(Round(0, 0))
    (first,) = driver.of(Persist)
    assert not driver.engine.wants_round
    driver.step(Synced(0, first.token))
    driver.syncs = True
    driver.round()
    batches = [batch for delivered in driver.of(Deliver) for batch in delivered.batches]
    assert [[e.request for e in b.envelopes] for b in batches] == [[0], [1, 2, 3]]


def test_a_few_proposals_wait_no_longer_than_a_moment_for_a_slow_commit() -> None:
    driver = leading()
    driver.syncs = False
    for number in range(2):
        driver.engine.append([envelope(number)])
        driver.step(Round(5, 0))
    assert driver.engine.due_ms == 5 + TOGETHER_MS
    driver.step(Tick(5 + TOGETHER_MS, 0))
    assert driver.engine.wants_round
    driver.step(Round(5 + TOGETHER_MS, 0))
    assert len(driver.of(Persist)) == 2
    driver.engine.append([envelope(2)])  # each waits for itself
    driver.step(Round(6 + TOGETHER_MS, 0))
    assert len(driver.of(Persist)) == 2


def test_a_follower_passes_proposals_on_to_the_leader() -> None:
    driver = following()
    driver.engine.append([envelope(1)])
    driver.round()
    assert driver.of(SendForward) == [SendForward(PeerId("b"), Forward((envelope(1),)))]


def test_what_is_passed_on_to_a_follower_goes_no_further() -> None:
    driver = following()
    driver.step(Forwarded(0, Forward((envelope(1),))))
    driver.round()
    assert driver.seen == []


def test_what_a_removed_member_passes_on_is_dropped() -> None:
    driver = Driver()
    driver.step(Tick(0, 0))
    for peer in "xy":
        driver.step(AddMember(0, 0, member(peer)))
    driver.step(RemoveMember(0, 0, PeerId("x")))
    mine = [Envelope(PeerId(peer), 1, Cancel(JobId("j"))) for peer in "xy"]
    driver.step(Forwarded(0, Forward(tuple(mine))))
    driver.round()
    driver.round()
    batches = [batch for delivered in driver.of(Deliver) for batch in delivered.batches]
    assert [e.proposer for batch in batches for e in batch.envelopes] == ["y"]


def test_entries_of_the_engine_itself_are_delivered_empty_and_leave_no_gap() -> None:
    driver = Driver()
    driver.step(Tick(0, 0))
    driver.round()
    batches = [batch for delivered in driver.of(Deliver) for batch in delivered.batches]
    assert [(b.index, b.envelopes) for b in batches] == [(1, ()), (2, ())]


def test_a_founder_is_the_only_voter_of_its_cluster() -> None:
    hard_state, entry = found_cluster(member("a"), 5, 6)
    assert hard_state == HardState(1, None)
    assert (entry.index, entry.term, entry.kind) == (1, 1, EntryKind.MEMBERSHIP)


def test_a_lone_leader_answers_a_read_with_its_commit() -> None:
    driver = leading()
    driver.engine.read_index(7)
    driver.round()
    assert driver.of(ReadAnswered) == [ReadAnswered(7, 2)]


def test_reads_of_one_turn_ask_once() -> None:
    driver = following()
    driver.engine.read_index(1)
    driver.engine.read_index(2)
    driver.round()
    (ask,) = driver.of(Send)
    assert isinstance(ask.message, ReadAsk)
    driver.step(Receive(0, PeerId("b"), ReadReply(2, ask.message.read, 1)))
    assert driver.of(ReadAnswered) == [ReadAnswered(1, 1), ReadAnswered(2, 1)]


def test_a_read_that_nobody_confirms_is_answered_in_the_end() -> None:
    driver = following()
    driver.engine.read_index(1)
    driver.round()
    driver.step(Tick(1_000, 0))
    assert driver.of(ReadAnswered) == [ReadAnswered(1, None)]


def test_a_late_answer_to_an_earlier_process_answers_no_read_of_this_one() -> None:
    asks = []
    for process in (1, 2):
        driver = Driver("abc", seed=process)
        driver.step(Receive(0, PeerId("b"), Append(2, 1, 1, 0, 1)))
        driver.engine.read_index(1)
        driver.round()
        asks += [s.message for s in driver.of(Send) if isinstance(s.message, ReadAsk)]
    driver.step(Receive(0, PeerId("b"), ReadReply(2, asks[0].read, 1)))
    assert driver.of(ReadAnswered) == []


def test_a_repeat_of_what_is_under_way_takes_no_second_place() -> None:
    driver = Driver()
    driver.step(Tick(0, 0))
    driver.round()
    driver.syncs = False  # the disk stalls
    for _ in range(50):
        driver.engine.append([envelope(number) for number in range(10)])
        driver.round()
    entries = [entry for persist in driver.of(Persist) for entry in persist.entries]
    assert sum(entry.kind is EntryKind.COMMANDS for entry in entries) == 1
    driver.syncs = True
    driver.step(Synced(0, driver.of(Persist)[-1].token))
    driver.round()
    delivered = [e.request for d in driver.of(Deliver) for b in d.batches for e in b.envelopes]
    assert delivered == list(range(10))
    driver.engine.append([envelope(3)])  # delivered: a repeat now is a proposal like any other
    driver.round()
    assert len([e for d in driver.of(Deliver) for b in d.batches for e in b.envelopes]) == 11


def test_a_read_that_nobody_answers_ends_within_its_patience() -> None:
    driver = Driver("abc")
    leader = PeerId("b")
    driver.step(Receive(0, leader, Append(2, 1, 1, 1, 1)))
    driver.engine.read_index(7)
    driver.round(10)
    assert driver.of(ReadAnswered) == []
    now_ms = 10
    while not driver.of(ReadAnswered):  # a driver ticks when it is due, and the leader lives
        now_ms = min(driver.engine.due_ms, now_ms + 100)
        driver.step(Receive(now_ms, leader, Append(2, 1, 1, 1, 1)))
        driver.step(Tick(now_ms, 0))
        assert now_ms <= 10 + READ_PATIENCE_MS
        now_ms += 1
    assert driver.of(ReadAnswered) == [ReadAnswered(7, None)]


def test_a_read_asked_of_a_leader_that_is_gone_is_answered_at_once() -> None:
    driver = Driver("abc")
    driver.step(Receive(0, PeerId("b"), Append(2, 1, 1, 1, 1)))
    driver.engine.read_index(7)
    driver.round(10)
    driver.step(Receive(20, PeerId("c"), Append(3, 1, 1, 1, 1)))
    assert driver.of(ReadAnswered) == [ReadAnswered(7, None)]


def test_what_the_coordinator_adds_is_left_out_where_the_entry_would_fit_no_frame() -> None:
    driver = Driver()
    driver.step(Tick(0, 0))
    driver.round()
    gaps = TaskSet(tuple((2 * n, 2 * n + 1) for n in range(4000)))
    place = Envelope(ME, 999, Place(JobId("j"), gaps, ME, 1))
    driver.engine._decorate = lambda envelopes: (*envelopes, *[place] * 200)
    driver.engine.append([envelope(0)])
    driver.round()
    (entry,) = [
        entry
        for persist in driver.of(Persist)
        for entry in persist.entries
        if entry.kind is EntryKind.COMMANDS
    ]
    assert len(entry.payload) <= ENTRY_BYTES_WITH_PLACES_MAX + 100
    encode(Append(1, 1, 1, 1, 1, (entry,)))
