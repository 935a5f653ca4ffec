"""Full disks: whose fault that is, how often it is forgiven, and who gets nothing meanwhile."""

from __future__ import annotations

from p2psched.core.coordinator import DETECTION_WINDOW_MS, FULL_MS, Coordinator
from p2psched.core.jobs import SPACELESS_MAX
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import Command, Place, Recorded, Retried, Retry, SubmitJob
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobState
from p2psched.model.taskset import TaskSet
from tests.core.test_machine import ALL, JOB, Ledger, P, Q, complete, ended, spec, up

FIRST = TaskSet.of(0, 1)


def ledger_with_job(retries: int = 0) -> Ledger:
    made = Ledger()
    made.do(up(P))
    made.do(up(Q))
    made.do(SubmitJob(JOB, spec(retries=retries)))
    return made


def spend(ledger: Ledger, times: int) -> None:
    """The first task ends on a full disk, that often."""
    for _ in range(times):
        ledger.do(complete(ledger.grant(FIRST), ended(0, 1, Cause.NO_SPACE)))


def test_a_full_disk_costs_no_retry_and_the_task_goes_elsewhere() -> None:
    ledger = ledger_with_job(retries=1)
    ledger.do(complete(ledger.grant(ALL), ended(0, 1, Cause.NO_SPACE)))
    (event,) = ledger.events
    assert isinstance(event, Retried)
    assert (event.peer, event.segment.cause) == (P, Cause.NO_SPACE)
    job = ledger.machine.jobs[JOB]
    assert job.waiting == FIRST
    assert job.attempts(TaskSet.of(0, 2)) == [(1, TaskSet.of(1, 2)), (2, FIRST)]
    ledger.do(complete(ledger.grant(FIRST, Q), ended(0, 1, Cause.EXIT)))
    assert job.failed == TaskSet()  # the retry that it was given is still its own
    assert job.attempts(FIRST) == [(3, FIRST)]


def test_full_disks_are_forgiven_a_bounded_number_of_times() -> None:
    ledger = ledger_with_job()
    spend(ledger, SPACELESS_MAX)
    assert ledger.machine.jobs[JOB].waiting == ALL
    spend(ledger, 1)
    assert [type(event) for event in ledger.events] == [Recorded]
    assert ledger.machine.jobs[JOB].failed == FIRST
    ledger.do(complete(ledger.grant(ALL), ended(1, 10)))
    assert ledger.state is JobState.FAILED


def test_who_is_run_again_by_hand_is_forgiven_anew() -> None:
    ledger = ledger_with_job()
    spend(ledger, SPACELESS_MAX + 1)
    ledger.do(Retry(JOB, spec()))
    spend(ledger, SPACELESS_MAX)
    assert ledger.machine.jobs[JOB].failed == TaskSet()


def test_a_snapshot_remembers_what_was_forgiven() -> None:
    ledger = ledger_with_job()
    spend(ledger, SPACELESS_MAX)
    restored = Machine()
    restore_machine(restored, encode_machine(ledger.machine))
    ledger.machine = restored
    spend(ledger, 1)
    assert restored.jobs[JOB].failed == FIRST


# --- where nothing is placed ----------------------------------------------------------------------


class Placing:
    """A coordinator on `P` that sees what the ledger says."""

    def __init__(self) -> None:
        self.ledger = ledger_with_job()
        self.coordinator = Coordinator(P, self.ledger.machine, window_ms=DETECTION_WINDOW_MS)
        self.coordinator.on_coordinator(0, is_self=True)

    def do(self, command: Command, now_ms: int) -> None:
        self.ledger.do(command, at_ms=now_ms)
        for event in self.ledger.events:
            self.coordinator.on_event(event)

    def peers(self, now_ms: int) -> set[PeerId]:
        """Where tasks would go."""
        self.coordinator.forgive_full(now_ms)
        self.coordinator.find_dead(now_ms, {Q: now_ms})
        return {c.peer for c in self.coordinator.place() if isinstance(c, Place)}


def test_nothing_is_placed_for_a_while_where_a_disk_was_full() -> None:
    placing = Placing()
    assert placing.peers(100) == {P, Q}
    grant = placing.ledger.grant(FIRST, Q)
    placing.do(complete(grant, ended(0, 1, Cause.NO_SPACE)), now_ms=1_000)
    assert placing.peers(1_000 + FULL_MS - 1) == {P}
    assert placing.peers(1_000 + FULL_MS) == {P, Q}


def test_also_when_that_was_the_last_time_that_it_was_forgiven() -> None:
    placing = Placing()
    spend(placing.ledger, SPACELESS_MAX)
    grant = placing.ledger.grant(FIRST, Q)
    placing.do(complete(grant, ended(0, 1, Cause.NO_SPACE)), now_ms=1_000)
    assert placing.ledger.machine.jobs[JOB].failed == FIRST
    assert placing.peers(2_000) == {P}


def test_who_coordinates_next_knows_of_full_disks_too() -> None:
    placing = Placing()
    placing.coordinator.on_coordinator(500, is_self=False)
    grant = placing.ledger.grant(FIRST, Q)
    placing.do(complete(grant, ended(0, 1, Cause.NO_SPACE)), now_ms=1_000)
    placing.coordinator.on_coordinator(2_000, is_self=True)
    assert placing.peers(2_100) == {P}


def test_other_failures_keep_nobody_from_work() -> None:
    placing = Placing()
    grant = placing.ledger.grant(FIRST, Q)
    placing.do(complete(grant, ended(0, 1, Cause.EXIT)), now_ms=1_000)
    assert placing.peers(1_100) == {P, Q}
