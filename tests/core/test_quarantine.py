"""Who eats tasks gets none: what counts as evidence, for how long, and that somebody is left."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.coordinator import Coordinator
from p2psched.core.quarantine import (
    FAILURES_MIN,
    INNOCENT_MIN,
    PAUSE_MS,
    PAUSE_MS_MAX,
    WATCH_MS,
    Quarantine,
)
from p2psched.model.commands import Place, Recorded, Retried, SubmitJob
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.taskset import TaskSet
from tests.core.test_drain import Ledger

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
JOB, OTHER = JobId("job"), JobId("other")
TAKERS = {A: 2, B: 2, C: 2}


class Rig:
    def __init__(self) -> None:
        self.quarantine = Quarantine()
        self.now_ms = 0

    def fails(self, peer: PeerId, *indexes: int, job: JobId = JOB) -> None:
        for index in indexes:
            segment = Segment(index, index + 1, Cause.NOT_STARTABLE, b"")
            self.quarantine.on_event(Retried(job, 1, peer, segment), self.now_ms)

    def succeeds(self, peer: PeerId, *indexes: int, job: JobId = JOB) -> None:
        for index in indexes:
            segment = Segment(index, index + 1, Cause.OK, b"")
            self.quarantine.on_event(Recorded(job, 1, peer, 0, segment), self.now_ms)

    def out(self) -> set[PeerId]:
        return set(self.quarantine.shut(TAKERS, self.now_ms)[0])

    def probed(self) -> set[PeerId]:
        return set(self.quarantine.shut(TAKERS, self.now_ms)[1])

    def later(self, ms: int) -> None:
        self.now_ms += ms


def convicted() -> Rig:
    rig = Rig()
    rig.fails(A, *range(INNOCENT_MIN))
    rig.succeeds(B, *range(INNOCENT_MIN))
    rig.later(WATCH_MS)
    assert rig.out() == {A}
    return rig


def test_a_peer_where_a_job_only_fails_waits_for_what_others_say() -> None:
    rig = Rig()
    rig.fails(A, *range(FAILURES_MIN - 1))
    assert not rig.out()
    rig.fails(A, FAILURES_MIN)
    assert rig.out() == {A}
    assert not rig.quarantine.story(A, rig.now_ms), "nothing is proven"
    rig.later(WATCH_MS)
    assert not rig.out(), "and nobody waits for ever"


def test_a_bad_job_blames_nobody() -> None:
    rig = Rig()
    rig.fails(A, 0, 1, 2, 3)
    rig.fails(B, 0, 1, 2, 3)
    rig.fails(C, 0, 1, 2, 3)
    assert not rig.out()
    rig.succeeds(B, 9)
    assert not rig.out()


def test_bad_tasks_among_good_ones_blame_nobody() -> None:
    """They fail wherever they are tried; a success between two failures says as much."""
    rig = Rig()
    for index in range(0, 90, 3):
        peer = (A, B, C)[index // 3 % 3]
        rig.fails(peer, index)
        rig.succeeds(peer, index + 1)
        rig.fails((B, C, A)[index // 3 % 3], index)
        rig.later(50)
        assert not rig.out()


def test_tasks_that_fail_here_and_succeed_elsewhere_put_a_peer_out() -> None:
    rig = convicted()
    assert "3 tasks that failed here succeeded elsewhere" in rig.quarantine.story(A, rig.now_ms)


def test_it_is_probed_after_a_while_with_longer_and_longer_pauses_and_is_back_after_a_success() -> (
    None
):
    rig = convicted()
    pause_ms = PAUSE_MS
    rig.now_ms = PAUSE_MS - 1
    for number in range(10, 20):
        assert rig.out() == {A}
        rig.later(1)
        assert (rig.out(), rig.probed()) == (set(), {A})
        rig.fails(A, number)
        pause_ms = min(2 * pause_ms, PAUSE_MS_MAX)
        rig.later(pause_ms - 1)
    rig.later(1)
    assert rig.probed() == {A}
    rig.succeeds(A, 30)
    assert not rig.out()
    assert not rig.probed()
    assert not rig.quarantine.story(A, rig.now_ms)


def test_what_it_was_given_before_costs_no_longer_pause() -> None:
    rig = convicted()
    rig.fails(A, *range(20, 40))
    rig.now_ms = PAUSE_MS
    assert rig.probed() == {A}


def test_who_alone_is_large_enough_for_some_task_is_never_out() -> None:
    rig = convicted()
    assert not rig.quarantine.shut({A: 4, B: 2, C: 2}, rig.now_ms)[0]
    assert not rig.quarantine.shut({A: 2}, rig.now_ms)[0], "nor who is alone"


@given(st.integers(0, 2**32), st.integers(1, 7))
def test_half_of_them_are_always_left(seed: int, count: int) -> None:
    rng = random.Random(seed)
    rig = Rig()
    peers = {PeerId(f"p{number}"): rng.randint(1, 3) for number in range(count)}
    for _ in range(200):
        peer, job = rng.choice(list(peers)), rng.choice((JOB, OTHER))
        act = rig.fails if rng.random() < 0.7 else rig.succeeds
        act(peer, rng.randrange(20), job=job)
        rig.later(rng.choice((0, 100, 5_000)))
        out, probed = rig.quarantine.shut(peers, rig.now_ms)
        assert len(out | probed) <= count // 2
        assert not out & probed
        left = [slots for name, slots in peers.items() if name not in out]
        assert max(left) == max(peers.values())


# --- what the coordinator makes of it ---


def placed(coordinator: Coordinator) -> dict[PeerId, int]:
    """How many tasks each is given."""
    found: dict[PeerId, int] = {}
    for command in coordinator.place():
        assert isinstance(command, Place)
        found[command.peer] = found.get(command.peer, 0) + len(command.tasks)
    return found


def test_a_peer_that_is_out_gets_nothing_and_one_that_is_probed_a_single_task() -> None:
    ledger = Ledger()
    coordinator = Coordinator(B, ledger.machine, window_ms=2_500)
    coordinator.on_coordinator(0, is_self=True)
    spec = JobSpec("j", TaskSet.of(0, 1_000), ProgramWork(("true",)))
    ledger.do(SubmitJob(JOB, spec))
    assert set(placed(coordinator)) == {A, B, C}
    for index in range(INNOCENT_MIN):
        segment = Segment(index, index + 1, Cause.EXIT, b"")
        coordinator.on_event(Retried(OTHER, 1, A, segment))
    for index in range(INNOCENT_MIN):
        segment = Segment(index, index + 1, Cause.OK, b"")
        coordinator.on_event(Recorded(OTHER, 1, B, 0, segment))
    assert set(placed(coordinator)) == {B, C}
    assert coordinator.shunned() == {A}
    assert set(coordinator.stories()) == {A}
    coordinator.forgive_full(2 * PAUSE_MS)
    given = placed(coordinator)
    assert given[A] == 1
    assert min(given[B], given[C]) > 1
    ledger.do(Place(JOB, TaskSet.of(0, 1), A, 1))
    assert A not in placed(coordinator), "one at a time"
