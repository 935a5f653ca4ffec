"""Tasks that kill their peers: who is suspected, who is blamed, and what innocents go through."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.coordinator import Coordinator
from p2psched.core.machine import Machine
from p2psched.core.poison import GROUPS_MAX, groups
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks, items
from p2psched.model.commands import (
    Command,
    Envelope,
    Granted,
    JobEnded,
    KeptGrant,
    PeerDown,
    Place,
    Placed,
    Recorded,
    Retry,
    Revoked,
    SubmitJob,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import ALL, JOB, Ledger, P, Q, complete, ended, spec, up

OTHER = JobId("other")
ONE = TaskSet.of(0, 1)
TWO = TaskSet.of(0, 2)


class Deaths(Ledger):
    """A ledger whose peers die."""

    def __init__(self, tasks: TaskSet = ONE) -> None:
        super().__init__()
        self.do(up(P))
        self.do(up(Q))
        self.do(SubmitJob(JOB, spec(tasks)))

    def incarnation(self, peer: PeerId = P) -> int:
        return self.machine.peers[peer].info.incarnation

    def put(self, tasks: TaskSet, peer: PeerId = P, job: JobId = JOB) -> TaskSet:
        """Place tasks; those that were granted."""
        outcome = self.do(Place(job, tasks, peer, self.incarnation(peer)))
        assert isinstance(outcome, Placed)
        return outcome.tasks

    def restart(self, peer: PeerId = P) -> None:
        """The process dies, and the next one is there before anybody missed it."""
        self.do(up(peer, self.incarnation(peer) + 1))

    def come_back(self, peer: PeerId, *kept: KeptGrant) -> None:
        """The same process was cut off, and knows it now."""
        before = self.incarnation(peer)
        again = up(peer, before + 1, kept)
        self.do(msgspec.structs.replace(again, continues=before))

    def kill(self, peer: PeerId = P, *, stopped: bool = False) -> None:
        self.do(PeerDown(peer, self.incarnation(peer), "", stopped=stopped))

    def die_with(self, tasks: TaskSet, times: int, peer: PeerId = P) -> None:
        for _ in range(times):
            assert self.put(tasks, peer) == tasks
            self.restart(peer)

    @property
    def failed(self) -> TaskSet:
        return self.machine.jobs[JOB].failed

    @property
    def suspects(self) -> TaskSet:
        return self.machine.jobs[JOB].suspects

    def recorded(self) -> Recorded:
        (event,) = [event for event in self.events if isinstance(event, Recorded)]
        return event


def test_a_task_whose_peer_died_three_times_while_it_was_alone_there_has_failed() -> None:
    ledger = Deaths()
    ledger.die_with(ONE, 2)
    assert ledger.state is JobState.RUNNING
    ledger.die_with(ONE, 1)
    recorded = ledger.recorded()
    assert recorded.segment.tasks == ONE
    assert recorded.segment.cause is Cause.PEER_LOST
    assert JobEnded(JOB, JobState.FAILED) in ledger.events
    (item,) = chunks.unpack(recorded.segment.data)
    header, _, _, _ = items.unpack(item)
    assert "its peer died 3 times while it ran nothing else (p, p, p)" in str(header["message"])


def test_the_placement_after_the_third_death_fails_the_task_and_grants_nothing() -> None:
    ledger = Deaths()
    ledger.die_with(ONE, 2)
    ledger.put(ONE)
    ledger.kill()
    assert ledger.state is JobState.RUNNING  # its peer may be cut off, and bring the result
    assert ledger.put(ONE, Q) == EMPTY
    assert [type(event) for event in ledger.events] == [Revoked, Recorded, JobEnded]
    assert ledger.failed == ONE


def test_a_result_that_comes_before_the_next_placement_counts() -> None:
    ledger = Deaths()
    ledger.die_with(ONE, 2)
    outcome = ledger.do(Place(JOB, ONE, P, ledger.incarnation()))
    assert isinstance(outcome, Placed)
    ledger.kill()
    ledger.do(complete(outcome.grant, ended(0, 1)))
    assert ledger.state is JobState.SUCCEEDED


def test_a_death_beside_other_tasks_is_no_kill() -> None:
    ledger = Deaths(ALL)
    ledger.do(SubmitJob(OTHER, spec(ALL)))
    for _ in range(2):
        assert ledger.put(ONE) == ONE
        assert ledger.put(ONE, P, OTHER) == ONE
        ledger.restart()
    assert ledger.suspects == ONE
    assert ledger.machine.jobs[JOB].killed == {}


def test_a_peer_that_stops_cleanly_makes_nobody_suspect() -> None:
    ledger = Deaths()
    for _ in range(5):
        assert ledger.put(ONE) == ONE
        ledger.kill(stopped=True)
        ledger.restart()
    for _ in range(5):
        assert ledger.put(ONE) == ONE
        ledger.kill(stopped=True)
        assert ledger.put(ONE, Q) == ONE
        ledger.kill(Q, stopped=True)
        ledger.restart()
        ledger.restart(Q)
    assert ledger.suspects == ledger.failed == EMPTY


def test_a_peer_that_keeps_its_task_has_not_died() -> None:
    ledger = Deaths()
    outcome = ledger.do(Place(JOB, ONE, P, 1))
    assert isinstance(outcome, Placed)
    for _ in range(5):
        ledger.kill()
        ledger.come_back(P, KeptGrant(JOB, outcome.grant, ONE))
    assert ledger.machine.jobs[JOB].killed == {}
    assert ledger.suspects == EMPTY


def test_a_peer_that_was_cut_off_has_not_died_of_what_was_taken_from_it() -> None:
    ledger = Deaths()
    for peer, other in ((P, Q), (Q, P)) * 4:
        ledger.put(ONE, peer)
        ledger.kill(peer)
        assert ledger.put(ONE, other) == ONE
        ledger.come_back(peer)
    assert ledger.failed == EMPTY
    assert ledger.machine.jobs[JOB].killed == {0: []}


def test_coming_back_takes_back_its_own_death_only() -> None:
    ledger = Deaths()
    ledger.die_with(ONE, 1)
    ledger.put(ONE)
    ledger.kill()
    ledger.come_back(P)  # with nothing, though nobody else had the task
    assert ledger.machine.jobs[JOB].killed == {0: [P]}


def test_tasks_that_saw_two_deaths_are_suspects_and_others_are_not() -> None:
    ledger = Deaths(ALL)
    ledger.die_with(TWO, 1)
    assert ledger.suspects == EMPTY
    ledger.die_with(ONE, 1)
    assert ledger.suspects == ONE


def test_a_suspect_is_granted_to_a_peer_that_owns_nothing_and_it_gets_nothing_else() -> None:
    ledger = Deaths(ALL)
    ledger.do(SubmitJob(OTHER, spec(ALL)))
    ledger.die_with(ONE, 2)
    assert ledger.put(ALL, P) == ALL - ONE  # whoever proposed it had not seen the deaths
    assert ledger.put(ONE, P) == EMPTY
    assert ledger.put(ONE, Q) == ONE
    assert ledger.put(ONE, Q, OTHER) == EMPTY
    ledger.do(complete(ledger.machine.command_index - 1, ended(0, 1)))
    assert ledger.machine.peers[Q].suspects == 0
    assert ledger.put(ONE, Q, OTHER) == ONE


def test_what_becomes_suspect_as_it_is_taken_from_the_dead_waits_for_a_free_peer() -> None:
    ledger = Deaths(ALL)
    ledger.die_with(TWO, 1)
    ledger.put(TWO, P)
    ledger.put(TaskSet.of(5, 6), Q)
    ledger.kill(P)
    assert ledger.put(TWO, Q) == EMPTY
    assert not TWO - ledger.machine.jobs[JOB].waiting


def test_a_retry_gives_a_task_its_deaths_again() -> None:
    ledger = Deaths()
    ledger.die_with(ONE, 3)
    assert ledger.failed == ONE
    ledger.do(Retry(JOB, spec(ONE)))
    assert ledger.suspects == EMPTY
    ledger.die_with(ONE, 2)
    assert ledger.failed == EMPTY
    ledger.die_with(ONE, 1)
    assert ledger.failed == ONE


def test_a_snapshot_carries_deaths_and_whom_they_are_blamed_on() -> None:
    ledger = Deaths()
    ledger.die_with(ONE, 2)
    ledger.put(ONE)
    ledger.kill()
    restored = Machine()
    restore_machine(restored, encode_machine(ledger.machine))
    ledger.machine = restored
    ledger.put(ONE, Q)
    assert ledger.failed == ONE


# --- groups ---------------------------------------------------------------------------------------


def suspects_of(count: int) -> Deaths:
    ledger = Deaths(TaskSet.of(0, count))
    ledger.die_with(TaskSet.of(0, count), 2)
    return ledger


def test_few_suspects_are_tried_one_by_one() -> None:
    ledger = suspects_of(GROUPS_MAX)
    assert [len(group) for group in groups(ledger.machine.jobs[JOB])] == [1] * GROUPS_MAX


def test_of_many_suspects_only_the_group_that_kills_again_is_split() -> None:
    ledger = suspects_of(10_000)
    job = ledger.machine.jobs[JOB]
    sizes = [len(group) for group in groups(job)]
    assert sizes[0] == -(-10_000 // GROUPS_MAX)
    assert sum(sizes) == 10_000
    bad = 1_234
    kills = 0
    while job.waiting:
        group = next(iter(groups(job)))
        assert ledger.put(group) == group
        if bad in group:
            kills += 1
            ledger.restart()
        else:
            grant = ledger.machine.command_index
            ledger.do(complete(grant, *(ended(*ends) for ends in group.ranges)))
    assert job.failed == TaskSet.of(bad, bad + 1)
    assert len(job.succeeded) == 9_999
    assert kills == 5  # of groups of about 157, then of 3, then of the task alone


# --- placement ------------------------------------------------------------------------------------


@pytest.fixture
def ledger() -> Deaths:
    """Two of ten tasks are suspects; three peers are up and own nothing."""
    made = Deaths(ALL)
    made.do(up(PeerId("r")))
    made.die_with(TWO, 2)
    return made


def coordinator_of(ledger: Deaths, me: PeerId = P) -> Coordinator:
    made = Coordinator(me, ledger.machine, window_ms=1000)
    made.on_coordinator(0, is_self=True)
    return made


def places(commands: list[Command]) -> list[Place]:
    assert all(isinstance(command, Place) for command in commands)
    return [command for command in commands if isinstance(command, Place)]


def test_suspects_go_one_by_one_to_peers_of_their_own(ledger: Deaths) -> None:
    commands = places(coordinator_of(ledger).place())
    assert commands[0].tasks == ONE
    alone = commands[0].peer
    assert alone == Q  # the coordinator itself, and who died with it, as a last choice
    assert all(c.peer != alone and not c.tasks & TWO for c in commands[1:])
    assert len(commands) > 1  # half of the peers go on with other work
    ledger.do(*commands)
    assert all(c.peer != alone for c in places(coordinator_of(ledger).place()))


def test_new_jobs_are_kept_off_the_peer_of_a_suspect(ledger: Deaths) -> None:
    ledger.do(*coordinator_of(ledger).place())
    submit = SubmitJob(OTHER, spec(TaskSet.of(0, 100)))
    first = places(coordinator_of(ledger).first_placements([Envelope(P, 1, submit)]))
    assert first
    assert Q not in {place.peer for place in first}


def test_a_busy_peer_is_kept_free_for_a_suspect_until_it_is_its_own(ledger: Deaths) -> None:
    for number, peer in enumerate([P, Q, PeerId("r")] * 3):
        job = JobId(f"old-{number}")
        ledger.do(SubmitJob(job, spec(ONE)))
        assert ledger.put(ONE, peer, job)
    for number in range(60):  # work comes as fast as it is done
        ledger.do(SubmitJob(JobId(f"new-{number}"), spec(ONE)), *coordinator_of(ledger).place())
        if any(held.suspect for held in ledger.machine.jobs[JOB].grants.values()):
            return
        machine = ledger.machine
        oldest = next(name for name in machine.running if name != JOB and machine.jobs[name].grants)
        (grant,) = machine.jobs[oldest].grants
        ledger.do(msgspec.structs.replace(complete(grant, ended(0, 1)), job=oldest))
    raise AssertionError("the suspect never ran")


def test_on_a_cluster_of_one_peer_suspects_run_one_after_the_other() -> None:
    ledger = Deaths(ALL)
    ledger.kill(Q)
    ledger.die_with(TWO, 2)
    seen = EMPTY
    for _ in range(2):
        (place,) = places(coordinator_of(ledger).place())
        ledger.do(place)
        assert coordinator_of(ledger).place() == []
        seen = seen | place.tasks
        first = place.tasks.first
        ledger.do(complete(ledger.machine.command_index, ended(first, first + 1)))
    assert seen == TWO
    assert placed_by(ledger, coordinator_of(ledger)) & (ALL - TWO)


def placed_by(ledger: Deaths, coordinator: Coordinator) -> TaskSet:
    ledger.do(*coordinator.place())
    granted = EMPTY
    for event in ledger.events:
        if isinstance(event, Granted):
            granted = granted | event.tasks
    return granted


def test_a_job_of_suspects_does_not_hold_up_younger_jobs(ledger: Deaths) -> None:
    ledger.do(SubmitJob(OTHER, spec(TaskSet.of(0, 4))))
    ledger.do(*coordinator_of(ledger).place())
    assert not ledger.machine.jobs[OTHER].waiting


def test_a_suspect_is_tried_on_a_peer_that_it_has_not_killed() -> None:
    ledger = Deaths()
    ledger.do(up(PeerId("r")))
    killed: list[PeerId] = []
    while ledger.state is JobState.RUNNING:
        (place,) = places(coordinator_of(ledger, PeerId("x")).place())
        ledger.do(place)
        killed.append(place.peer)
        ledger.restart(place.peer)
    assert len(killed) == 3
    assert len(set(killed[1:])) == 2


def test_the_last_try_waits_for_a_peer_that_the_task_has_not_killed() -> None:
    """P fails by itself again and again, and the task is all that it had; the other is busy."""
    ledger = Deaths(TWO)
    one, other = TaskSet.of(0, 1), TaskSet.of(1, 2)
    grant = ledger.grant(other, Q)
    ledger.die_with(one, 2)
    assert ledger.suspects == one
    assert places(coordinator_of(ledger).place()) == []
    ledger.do(complete(grant, ended(1, 2)))
    (place,) = places(coordinator_of(ledger).place())
    assert (place.peer, place.tasks) == (Q, one)
