"""Feature levels: nothing new is said before everybody understands it, and who doesn't stops."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core import levels, peering
from p2psched.core.follower import Follower
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.scheduler import (
    Answered,
    AppendToLedger,
    Applied,
    Asked,
    Clocked,
    CoordinatorChanged,
    Round,
    Scheduler,
    SchedulerEffect,
)
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import (
    Acknowledged,
    Command,
    Drain,
    DrainMode,
    Envelope,
    ForgetPeer,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Pin,
    Place,
    RaiseLevel,
    Rejected,
    SubmitJob,
)
from p2psched.model.errors import Refused
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet
from tests.core import feed_rig
from tests.core.feed_rig import Rig
from tests.core.test_machine import spec

A, B = PeerId("a"), PeerId("b")
NEW = Pin(JobId("j"), pinned=True)  # a command that came with level 2


@pytest.fixture(autouse=True)
def _new_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels.NEEDED, Pin, 2)


def info(peer: PeerId, level: int, incarnation: int = 1) -> PeerInfo:
    return PeerInfo(peer, incarnation, f"peer-{peer}", f"{peer}:1", 0, 1, "0", "3", level)


class Log:
    """Commands one after another, into any number of machines."""

    def __init__(self) -> None:
        self.batches: list[Committed] = []

    def add(self, *commands: Command, proposer: PeerId = A) -> Committed:
        index = len(self.batches) + 1
        envelopes = tuple(Envelope(proposer, 100 * index + n, c) for n, c in enumerate(commands))
        self.batches.append(Committed(index, index, 0, envelopes))
        return self.batches[-1]


def machine(known: int, log: Log) -> Machine:
    made = Machine(known)
    for batch in log.batches:
        made.apply(batch)
    return made


def do(m: Machine, log: Log, command: Command) -> Outcome:
    return m.apply(log.add(command))[0][0]


def two_peers(a: int, b: int) -> tuple[Machine, Log]:
    log = Log()
    log.add(PeerUp(info(A, a)), PeerUp(info(B, b)))
    return machine(2, log), log


def test_a_newer_command_is_refused_until_the_level_is_raised() -> None:
    m, log = two_peers(2, 2)
    refused = do(m, log, NEW)
    assert isinstance(refused, Rejected)
    assert refused.code == "unavailable"
    assert "level 2" in refused.message
    assert do(m, log, RaiseLevel(2)) == Acknowledged()
    outcome = do(m, log, NEW)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "not-found", "it is understood, and there is no such job"


def test_a_refused_proposal_that_is_committed_again_after_the_raise_stays_refused() -> None:
    m, log = two_peers(2, 2)
    batch = log.add(NEW)
    first = m.apply(batch)[0][0]
    do(m, log, RaiseLevel(2))
    again = m.apply(Committed(batch.index + 2, 0, 0, batch.envelopes))[0][0]
    assert again == first


@pytest.mark.parametrize(("a", "b", "level"), [(1, 2, 1), (2, 1, 1), (2, 2, 2), (3, 2, 2)])
def test_the_level_is_what_the_least_of_all_peers_knows(a: int, b: int, level: int) -> None:
    m, log = two_peers(a, b)
    for command in levels.to_raise(m):
        do(m, log, command)
    assert m.level == level
    assert levels.to_raise(m) == []


def test_a_raise_that_some_peer_does_not_know_changes_nothing_and_says_whose() -> None:
    m, log = two_peers(2, 1)
    outcome = do(m, log, RaiseLevel(2))
    assert isinstance(outcome, Rejected)
    assert "peer-b" in outcome.message
    assert m.level == 1


def test_a_level_never_falls() -> None:
    m, log = two_peers(2, 2)
    do(m, log, RaiseLevel(2))
    assert do(m, log, RaiseLevel(1)) == Acknowledged()
    assert m.level == 2


def test_an_older_peer_does_not_come_up_any_more() -> None:
    m, log = two_peers(2, 2)
    do(m, log, RaiseLevel(2))
    outcome = do(m, log, PeerUp(info(B, 1, incarnation=2)))
    assert isinstance(outcome, Rejected)
    assert m.peers[B].info.level == 2


# --- who counts -----------------------------------------------------------------------------------


NEW_LEVEL = levels.NEEDED[ForgetPeer]


def three(level: int = NEW_LEVEL, **levels_known: int) -> tuple[Machine, Log]:
    """A, B and C of the newest versions but for those named; the ledger uses `level`."""
    known = {"a": NEW_LEVEL, "b": NEW_LEVEL, "c": NEW_LEVEL} | levels_known
    log = Log()
    ups = [PeerUp(info(PeerId(peer), knows)) for peer, knows in known.items()]
    log.add(*ups, RaiseLevel(level))
    return machine(NEW_LEVEL, log), log


def test_a_peer_that_is_away_counts_and_one_that_was_removed_does_not() -> None:
    """Else the level in which it can be forgotten would never come."""
    m, log = three(level=2, b=2)
    assert levels.to_raise(m, [B]) == [], "it is up still"
    do(m, log, PeerDown(B, 1, "not heard"))
    assert levels.to_raise(m) == []
    assert levels.to_raise(m, [A]) == []
    (command,) = levels.to_raise(m, [A, B])
    assert command == RaiseLevel(NEW_LEVEL, (B,))
    assert isinstance(do(m, log, RaiseLevel(NEW_LEVEL)), Rejected)
    assert do(m, log, command) == Acknowledged()
    assert m.level == NEW_LEVEL
    assert peering.to_forget(m, [B, A]) == [ForgetPeer(B)], "A is up, whatever was decided"
    assert do(m, log, ForgetPeer(B)) == Acknowledged()
    assert list(m.peers) == [A, "c"]


def test_a_removed_peer_that_is_up_again_counts() -> None:
    m, log = three(level=2, b=2)
    assert isinstance(do(m, log, RaiseLevel(NEW_LEVEL, (B,))), Rejected)
    assert m.level == 2


@pytest.mark.parametrize("again", [False, True])
def test_a_forgotten_peer_is_down_and_owns_nothing_for_good(*, again: bool) -> None:
    """Over snapshots, and whatever it says of itself."""
    m, log = three()
    place = SubmitJob(JobId("j"), spec()), Place(JobId("j"), TaskSet.of(0, 2), B, 1)
    m.apply(log.add(*place, PeerDown(B, 1, "not heard")))
    assert isinstance(do(m, log, ForgetPeer(B)), Rejected), "its tasks may still be its own"
    assert peering.to_forget(m, [B]) == []
    assert m.peers[B].owned == 2
    m.apply(log.add(Place(JobId("j"), TaskSet.of(0, 2), A, 1)))
    assert [do(m, log, ForgetPeer(B)) for _ in range(1 + again)][-1] == Acknowledged()
    assert list(m.peers) == [A, "c"]
    restored = Machine(NEW_LEVEL)
    restore_machine(restored, encode_machine(m))
    for one in (m, restored):
        outcome = one.apply(log.add(PeerUp(info(B, NEW_LEVEL, incarnation=9))))[0][0]
        assert isinstance(outcome, Rejected)
        assert "removed" in outcome.message
        assert B not in one.peers
        assert one.name_of(B) == "peer-b"
        drained = one.apply(log.add(Drain(B, DrainMode.ON)))[0][0]
        assert isinstance(drained, Rejected)
        assert drained.code == "refused"
        log.batches.pop()
        log.batches.pop()


def test_nobody_is_forgotten_before_all_know_the_command() -> None:
    m, log = two_peers(2, 1)
    do(m, log, PeerDown(B, 1, "not heard"))
    assert peering.to_forget(m, [B]) == []
    refused = do(m, log, ForgetPeer(B))
    assert isinstance(refused, Rejected)
    assert refused.code == "unavailable"


def test_who_was_removed_is_remembered_but_not_without_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peering, "GONE_MAX", 1)
    m, log = three()
    for peer in (B, PeerId("c")):
        do(m, log, PeerDown(peer, 1, "not heard"))
        do(m, log, ForgetPeer(peer))
    assert m.gone == {"c": "peer-c"}


# --- versions that know less ----------------------------------------------------------------------


def test_a_version_that_does_not_know_the_level_stops_and_says_what_to_do() -> None:
    _, log = two_peers(2, 2)
    log.add(RaiseLevel(2))
    with pytest.raises(Refused, match=r"uses feature level 2.*knows 1.*install"):
        machine(1, log)


def test_such_a_version_does_not_go_on_from_a_snapshot_either() -> None:
    m, log = two_peers(2, 2)
    do(m, log, RaiseLevel(2))
    older = Machine(1)
    with pytest.raises(Refused, match="install"):
        restore_machine(older, encode_machine(m))
    assert older.applied_index == 0
    newer = Machine(3)
    restore_machine(newer, encode_machine(m))
    assert newer.level == 2


def test_what_an_older_version_says_of_itself_is_the_first_level() -> None:
    old = msgspec.msgpack.encode(list(msgspec.structs.astuple(info(A, 2)))[:-1])
    assert msgspec.msgpack.decode(old, type=PeerInfo).level == 1


def test_this_version_knows_what_its_commands_need() -> None:
    needed = {kind: level for kind, level in levels.NEEDED.items() if kind is not Pin}
    assert max(needed.values(), default=1) <= KNOWN_LEVEL


# --- the scheduler --------------------------------------------------------------------------------


def proposed(effects: list[SchedulerEffect]) -> list[Command]:
    return [
        envelope.command
        for effect in effects
        if isinstance(effect, AppendToLedger)
        for envelope in effect.envelopes
    ]


def scheduler_with(a: int, b: int) -> Scheduler:
    """That of `a`, which coordinates."""
    _, log = two_peers(a, b)
    made = Scheduler(info(A, a))
    made.step(Applied(0, tuple(log.batches)))
    made.step(CoordinatorChanged(0, A, is_self=True))
    return made


def on_clock(scheduler: Scheduler, now_ms: int) -> list[Command]:
    scheduler.step(Clocked(now_ms, {B: now_ms}))
    return proposed(scheduler.step(Round(now_ms)))


def test_the_coordinator_raises_the_level_once_all_peers_know_more() -> None:
    assert on_clock(scheduler_with(2, 1), 100) == []
    scheduler = scheduler_with(2, 2)
    assert on_clock(scheduler, 100) == [RaiseLevel(2)]
    log = Log()
    log.add(PeerUp(info(A, 2)), PeerUp(info(B, 2)))
    scheduler.step(Applied(150, (log.add(RaiseLevel(2), proposer=B),)))
    assert on_clock(scheduler, 200) == []


def test_the_coordinator_proposes_to_forget_who_was_removed_once_it_is_down() -> None:
    scheduler = scheduler_with(NEW_LEVEL, NEW_LEVEL)
    log = Log()
    log.add(PeerUp(info(A, NEW_LEVEL)), PeerUp(info(B, NEW_LEVEL)))
    scheduler.step(Applied(50, (log.add(RaiseLevel(NEW_LEVEL), proposer=B),)))

    def proposals(now_ms: int) -> list[Command]:
        scheduler.step(Clocked(now_ms, {B: now_ms}, removed=(B,)))
        return proposed(scheduler.step(Round(now_ms)))

    assert proposals(100) == []
    scheduler.step(Applied(150, (log.add(PeerDown(B, 1, "removed"), proposer=B),)))
    assert proposals(200) == [ForgetPeer(B)]
    scheduler.step(Applied(250, (log.add(ForgetPeer(B), proposer=B),)))
    assert proposals(300) == []
    scheduler.step(CoordinatorChanged(300, B, is_self=False))
    assert proposals(400) == []


def test_nobody_else_raises_it() -> None:
    scheduler = scheduler_with(2, 2)
    scheduler.step(CoordinatorChanged(0, B, is_self=False))
    assert on_clock(scheduler, 100) == []


def test_a_newer_command_is_not_even_proposed_too_early() -> None:
    scheduler = scheduler_with(2, 1)
    effects = scheduler.step(Asked(10, 7, NEW))
    (answer,) = [effect for effect in effects if isinstance(effect, Answered)]
    assert isinstance(answer.outcome, Rejected)
    assert "peer-b" in answer.outcome.message
    assert proposed(effects) == []


def test_a_follower_stops_when_the_ledger_uses_what_its_version_does_not_know() -> None:
    rig = Rig()
    older = msgspec.structs.replace(feed_rig.info(feed_rig.F), level=KNOWN_LEVEL - 1)
    rig.follower = Follower(older, feed_rig.GROUP, feed_rig.L)
    with pytest.raises(Refused, match=f"knows {KNOWN_LEVEL - 1}"):
        rig.begin()
