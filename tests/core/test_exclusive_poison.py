"""Exclusive tasks that kill their peers: a death counts where the lease has lapsed."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.exclusive import AFRESH_LEVEL
from p2psched.core.jobs import Job
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks, items
from p2psched.model.commands import KeptGrant, PeerDown, PeerUp, Place, Placed, Recorded, Retry
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobState
from p2psched.model.once import Once, Start, Started, Unsure, margin_ms
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, R, info, spec

LEASE_MS = 3_000
LAPSE_MS = LEASE_MS + margin_ms(LEASE_MS)
ONE = TaskSet.of(0, 1)


class Deadly:
    def __init__(self, count: int = 1, level: int = KNOWN_LEVEL) -> None:
        self.ledger = Ledger(level=level)
        self.wanted = msgspec.structs.replace(spec(count), start=Start.EXCLUSIVE, lease_ms=LEASE_MS)
        self.job: Job = self.ledger.submit(self.wanted)
        self.grant = 0

    def incarnation(self, peer: PeerId) -> int:
        return self.ledger.machine.peers[peer].info.incarnation

    def run(self, tasks: TaskSet = ONE, peer: PeerId = P) -> None:
        placed = self.ledger.do(Place(self.job.id, tasks, peer, self.incarnation(peer)))
        assert isinstance(placed, Placed)
        assert placed.tasks == tasks
        self.grant = placed.grant
        step = Started(placed.grant, tasks, peer, self.incarnation(peer))
        self.ledger.do(Once(self.job.id, step))

    def down(self, peer: PeerId = P, *, stopped: bool = False) -> None:
        self.ledger.do(PeerDown(peer, self.incarnation(peer), "", stopped=stopped))

    def up(self, peer: PeerId = P, *, kept: TaskSet = EMPTY, same: bool = False) -> None:
        before = self.incarnation(peer)
        again = msgspec.structs.replace(info(peer), incarnation=before + 1)
        keeps = (KeptGrant(self.job.id, self.grant, kept),) if kept else ()
        self.ledger.do(PeerUp(again, keeps, before if same else 0))

    def lapse(self) -> None:
        self.ledger.wait(LAPSE_MS)

    def die(self, tasks: TaskSet = ONE, *, missed: bool) -> None:
        """Its process, and another one is there, maybe before anybody has missed it."""
        self.run(tasks)
        if missed:
            self.down()
        self.up()
        self.lapse()

    @property
    def kills(self) -> list[PeerId]:
        return self.job.killed.get(0, [])


@pytest.mark.parametrize("missed", [False, True])
def test_the_third_peer_that_died_of_it_alone_is_the_last_and_it_fails_with_its_story(
    *, missed: bool
) -> None:
    case = Deadly()
    for _ in range(2):
        case.die(missed=missed)
        assert case.job.placeable == ONE
    case.die(missed=missed)
    assert (case.job.state, case.job.failed, case.job.attempts_lost) == (JobState.FAILED, ONE, 3)
    (recorded,) = [each for each in case.ledger.events if isinstance(each, Recorded)]
    assert recorded.segment.cause is Cause.PEER_LOST
    (item,) = chunks.unpack(recorded.segment.data)
    header, _, _, _ = items.unpack(item)
    assert "its peer died 3 times while it ran nothing else (p, p, p)" in str(header["message"])


def test_peers_that_are_down_where_the_lease_lapses_have_died() -> None:
    case = Deadly()
    for peer in (P, Q, R):
        case.run(peer=peer)
        case.down(peer)
        case.lapse()
    assert (case.job.state, case.kills) == (JobState.FAILED, [P, Q, R])


def test_who_was_only_cut_off_has_not_died() -> None:
    case = Deadly()
    case.run()
    case.down()
    case.up(same=True)  # and does not go on with it
    case.lapse()
    assert (case.job.waiting, case.kills, case.job.deaths.levels) == (ONE, [], ())
    case.run()
    case.down()
    case.lapse()
    assert case.kills == [P]
    case.up(same=True)
    assert case.kills == [], "as with any other task"


def test_who_goes_on_with_it_or_stopped_or_knows_no_more_has_not_died() -> None:
    case = Deadly()
    case.run()
    case.down()
    case.up(same=True, kept=ONE)
    assert case.job.owned_count == 1
    case.ledger.do(Once(case.job.id, Unsure(case.grant, ONE)))
    case.lapse()
    case.run()
    case.down(stopped=True)
    case.up()
    case.lapse()
    assert (case.job.waiting, case.kills, case.job.deaths.levels) == (ONE, [], ())


def test_who_died_of_several_makes_them_suspects_and_kills_by_none() -> None:
    case = Deadly(2)
    both = TaskSet.of(0, 2)
    for _ in range(2):
        case.die(both, missed=True)
    assert (case.job.suspects, case.job.killed) == (both, {})
    placed = case.ledger.do(Place(case.job.id, both, Q, case.incarnation(Q)))
    assert isinstance(placed, Placed)
    assert placed.tasks == both, "a group of suspects, and nothing else"


def test_a_second_absence_does_not_take_back_the_death_of_the_first() -> None:
    case = Deadly()
    case.run()
    case.up()  # another process
    case.down()
    case.up(same=True)
    case.lapse()
    assert case.kills == [P]


def test_who_runs_it_again_forgives_it() -> None:
    case = Deadly()
    for _ in range(3):
        case.die(missed=True)
    case.ledger.do(Retry(case.job.id, case.wanted))
    case.ledger.wait(LAPSE_MS)
    assert (case.job.placeable, case.kills, case.job.deaths.levels) == (ONE, [], ())


def test_a_snapshot_knows_of_deaths_that_do_not_count_yet() -> None:
    case = Deadly()
    for _ in range(2):
        case.die(missed=True)
    case.run()
    case.down()
    other = Ledger()
    restore_machine(other.machine, encode_machine(case.ledger.machine))
    other.now_ms = case.ledger.now_ms
    other.wait(LAPSE_MS)
    assert other.machine.jobs[case.job.id].failed == ONE


def test_an_older_cluster_loses_leases_and_blames_nobody() -> None:
    case = Deadly(level=AFRESH_LEVEL - 1)
    for _ in range(4):
        case.die(missed=True)
    assert (case.job.waiting, case.job.deaths.levels) == (ONE, ())
