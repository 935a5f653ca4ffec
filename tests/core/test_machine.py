"""The state machine: what each command does to jobs, grants and peers."""

from __future__ import annotations

from collections import Counter

import pytest

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import REPEATS_KNOWN_MAX, Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks, digests
from p2psched.model.blob import BlobRef
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Completed,
    Envelope,
    Event,
    Granted,
    JobEnded,
    KeptGrant,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    Recorded,
    Rejected,
    ResultRefused,
    Retried,
    Revoked,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.taskset import EMPTY, TaskSet

JOB = JobId("job")
P, Q = PeerId("p"), PeerId("q")
ALL = TaskSet.of(0, 10)


class Ledger:
    """A machine and the ledger that it folds, one command an entry."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.events: list[Event] = []  # of the last command

    def do(
        self, *commands: Command, request: int | None = None, at_ms: int | None = None
    ) -> Outcome:
        """`request`: the number of the proposal, else a new one for each. `at_ms`: ledger time."""
        index = self.machine.applied_index + 1
        stamp_ms = index if at_ms is None else at_ms
        first = 1_000 * index if request is None else request
        envelopes = tuple(Envelope(P, first + i, command) for i, command in enumerate(commands))
        outcomes, stamped = self.machine.apply(Committed(index, stamp_ms, 0, envelopes))
        self.events = [s.event for s in stamped]
        self.check()
        return outcomes[-1]

    def check(self) -> None:
        """What holds after any command."""
        machine = self.machine
        for job in machine.jobs.values():
            job.check()
        assert machine.result_bytes == sum(job.result_bytes for job in machine.jobs.values())
        assert set(machine.jobs) == {*machine.running, *machine.ended}
        assert set(machine.with_blobs) >= {job.id for job in machine.jobs.values() if job.blobs}
        assert not set(machine.with_blobs) - set(machine.jobs)
        named = Counter(ref for job in machine.jobs.values() for ref in job.spec.blobs)
        assert machine.sent == named

    def grant(self, tasks: TaskSet, peer: PeerId = P, incarnation: int = 1) -> int:
        outcome = self.do(Place(JOB, tasks, peer, incarnation))
        assert isinstance(outcome, Placed)
        return outcome.grant

    @property
    def state(self) -> JobState:
        return self.machine.jobs[JOB].state


def spec(tasks: TaskSet = ALL, retries: int = 0) -> JobSpec:
    return JobSpec(name="", tasks=tasks, work=ProgramWork(("true",)), retries=retries)


def up(peer: PeerId, incarnation: int = 1, kept: tuple[KeptGrant, ...] = ()) -> PeerUp:
    return PeerUp(PeerInfo(peer, incarnation, peer, "", 0, 2, "", "", KNOWN_LEVEL), kept)


def ended(start: int, stop: int, cause: Cause = Cause.OK, busy_us: int = 1000) -> Segment:
    return Segment(start, stop, cause, chunks.pack([b"x"] * (stop - start)), busy_us)


def blob_ref(number: int) -> BlobRef:
    return BlobRef(digests.digest_of(b"%d" % number), 1_000 + number)


def complete(grant: int, *segments: Segment) -> Complete:
    return Complete(JOB, grant, segments)


@pytest.fixture
def ledger() -> Ledger:
    """Two peers are up and a job of ten tasks waits."""
    made = Ledger()
    made.do(up(P))
    made.do(up(Q))
    made.do(SubmitJob(JOB, spec(retries=1)))
    return made


def test_the_same_submit_again_is_the_same_job(ledger: Ledger) -> None:
    assert ledger.do(SubmitJob(JOB, spec(retries=1))) == Submitted(JOB, duplicate=True)
    assert ledger.events == []
    assert len(ledger.machine.jobs) == 1


def test_another_job_under_a_known_id_is_refused(ledger: Ledger) -> None:
    outcome = ledger.do(SubmitJob(JOB, spec(retries=2)))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "usage"


def test_a_job_submitted_again_after_its_end_stays_ended(ledger: Ledger) -> None:
    ledger.do(complete(ledger.grant(ALL), ended(0, 10)))
    assert ledger.do(SubmitJob(JOB, spec(retries=1))) == Submitted(JOB, duplicate=True)
    assert ledger.state is JobState.SUCCEEDED


def test_a_grant_is_the_index_of_its_command(ledger: Ledger) -> None:
    assert ledger.grant(ALL) == ledger.machine.command_index == 4


def test_owned_tasks_are_not_granted_again(ledger: Ledger) -> None:
    ledger.grant(TaskSet.of(0, 6))
    outcome = ledger.do(Place(JOB, ALL, Q, 1))
    assert outcome == Placed(5, TaskSet.of(6, 10))
    assert ledger.do(Place(JOB, ALL, P, 1)) == Placed(6, EMPTY)


def test_nothing_is_granted_to_who_is_not_live(ledger: Ledger) -> None:
    ledger.do(PeerDown(P, 1, "gone"))
    assert ledger.do(Place(JOB, ALL, P, 1)) == Placed(5, EMPTY)
    assert ledger.do(Place(JOB, ALL, Q, 2)) == Placed(6, EMPTY)
    assert ledger.do(Place(JobId("other"), ALL, Q, 1)) == Placed(7, EMPTY)


def test_each_task_of_a_complete_is_accepted_duplicate_or_stale(ledger: Ledger) -> None:
    grant = ledger.grant(TaskSet.of(0, 6))
    ledger.grant(TaskSet.of(6, 10), Q)
    ledger.do(complete(grant, ended(0, 3)))
    outcome = ledger.do(complete(grant, ended(2, 8)))
    assert outcome == Completed(TaskSet.of(3, 6), TaskSet.of(2, 3), TaskSet.of(6, 8))
    assert [e.segment.tasks for e in ledger.events if isinstance(e, Recorded)] == [TaskSet.of(3, 6)]
    assert ResultRefused(JOB, grant, TaskSet.of(6, 8)) in ledger.events
    assert ledger.machine.results_refused == 2


def test_the_same_complete_again_changes_nothing(ledger: Ledger) -> None:
    command = complete(ledger.grant(ALL), ended(0, 4))
    ledger.do(command)
    assert ledger.do(command) == Completed(duplicate=TaskSet.of(0, 4))
    assert ledger.events == []


def test_what_a_complete_says_twice_counts_once(ledger: Ledger) -> None:
    grant = ledger.grant(ALL)
    outcome = ledger.do(
        complete(grant, ended(0, 4), ended(2, 6, Cause.EXCEPTION), ended(0, 2), ended(6, 10))
    )
    assert outcome == Completed(ALL, TaskSet.of(0, 4), EMPTY)
    assert ledger.machine.jobs[JOB].succeeded == ALL - TaskSet.of(4, 6)


def test_results_of_an_unknown_job_are_stale() -> None:
    ledger = Ledger()
    assert ledger.do(complete(1, ended(0, 2))) == Completed(stale=TaskSet.of(0, 2))


def test_damaged_results_are_refused_and_change_nothing(ledger: Ledger) -> None:
    grant = ledger.grant(ALL)
    outcome = ledger.do(complete(grant, Segment(0, 3, Cause.OK, chunks.pack([b"x"]), 1)))
    assert isinstance(outcome, Rejected)
    assert ledger.machine.jobs[JOB].owned_count == 10


def test_a_failure_is_tried_again_under_another_grant_until_retries_are_used(
    ledger: Ledger,
) -> None:
    first = ledger.grant(ALL)
    ledger.do(complete(first, ended(0, 1, Cause.EXIT)))
    assert [type(event) for event in ledger.events] == [Retried]
    assert ledger.machine.jobs[JOB].attempts(TaskSet.of(0, 2)) == [
        (1, TaskSet.of(1, 2)),
        (2, TaskSet.of(0, 1)),
    ]
    second = ledger.grant(TaskSet.of(0, 1), Q)
    assert second > first
    ledger.do(complete(second, ended(0, 1, Cause.EXIT)))
    assert ledger.machine.jobs[JOB].failed == TaskSet.of(0, 1)
    ledger.do(complete(first, ended(1, 10)))
    assert ledger.state is JobState.FAILED


@pytest.mark.parametrize("cause", [Cause.NOT_SERIALISABLE, Cause.TOO_LARGE])
def test_what_would_only_fail_the_same_way_is_not_tried_again(ledger: Ledger, cause: Cause) -> None:
    ledger.do(complete(ledger.grant(ALL), ended(0, 1, cause)))
    assert ledger.machine.jobs[JOB].failed == TaskSet.of(0, 1)


def test_a_lost_peer_costs_no_retry(ledger: Ledger) -> None:
    for incarnation in range(1, 6):
        ledger.grant(ALL, incarnation=incarnation)
        ledger.do(up(P, incarnation + 1))
    ledger.do(complete(ledger.grant(ALL, incarnation=6), ended(0, 10, Cause.EXIT)))
    assert ledger.machine.jobs[JOB].failed == EMPTY
    assert ledger.machine.jobs[JOB].attempts(ALL) == [(7, ALL)]


def test_cancel_is_final(ledger: Ledger) -> None:
    grant = ledger.grant(TaskSet.of(0, 6))
    ledger.do(complete(grant, ended(0, 2)))
    assert ledger.do(Cancel(JOB)) == Acknowledged()
    assert ledger.events == [
        Revoked(JOB, grant, P, TaskSet.of(2, 6), Cause.CANCELLED),
        JobEnded(JOB, JobState.CANCELLED),
    ]
    late = ledger.do(complete(grant, ended(2, 6)))
    assert late == Completed(stale=TaskSet.of(2, 6))
    assert ledger.do(Place(JOB, ALL, Q, 1)) == Placed(ledger.machine.command_index, EMPTY)
    assert ledger.do(Cancel(JOB)) == Acknowledged()
    assert ledger.state is JobState.CANCELLED


def test_cancel_of_an_unknown_job_says_so() -> None:
    outcome = Ledger().do(Cancel(JOB))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "not-found"


def test_a_peer_that_comes_back_keeps_what_it_still_works_on(ledger: Ledger) -> None:
    grant = ledger.grant(ALL)
    kept = KeptGrant(JOB, grant, TaskSet.of(0, 4))
    ledger.do(up(P, 2, (kept,)))
    assert Revoked(JOB, grant, P, TaskSet.of(4, 10), Cause.PEER_LOST) in ledger.events
    job = ledger.machine.jobs[JOB]
    assert job.waiting == TaskSet.of(4, 10)
    assert job.grants[grant].incarnation == 2
    assert ledger.do(complete(grant, ended(0, 4))) == Completed(TaskSet.of(0, 4))


def test_a_peer_cannot_keep_what_was_granted_to_another(ledger: Ledger) -> None:
    grant = ledger.grant(ALL)
    ledger.do(up(Q, 2, (KeptGrant(JOB, grant, ALL),)))
    assert ledger.machine.jobs[JOB].grants[grant].peer == P


def test_an_older_incarnation_that_comes_up_late_is_refused(ledger: Ledger) -> None:
    ledger.do(up(P, 5))
    outcome = ledger.do(up(P, 4))
    assert isinstance(outcome, Rejected)
    assert ledger.do(up(P, 5)) == Acknowledged()
    ledger.do(PeerDown(P, 5, "gone"))
    assert isinstance(ledger.do(up(P, 5)), Rejected)


def test_the_end_of_an_older_incarnation_is_no_end_of_the_newer(ledger: Ledger) -> None:
    ledger.do(up(P, 2))
    assert ledger.do(PeerDown(P, 1, "gone")) == Acknowledged()
    assert ledger.machine.peers[P].live


def test_results_of_a_peer_that_is_down_count_while_nobody_else_owns_the_tasks(
    ledger: Ledger,
) -> None:
    grant = ledger.grant(ALL)
    ledger.do(PeerDown(P, 1, "gone"))
    assert ledger.machine.jobs[JOB].placeable == ALL
    assert ledger.do(complete(grant, ended(0, 4))) == Completed(TaskSet.of(0, 4))
    assert ledger.machine.jobs[JOB].placeable == TaskSet.of(4, 10)


def test_results_of_a_peer_that_is_down_are_refused_once_the_tasks_are_granted_anew(
    ledger: Ledger,
) -> None:
    old = ledger.grant(ALL)
    ledger.do(PeerDown(P, 1, "gone"))
    new = ledger.grant(TaskSet.of(0, 4), Q)
    assert Revoked(JOB, old, P, TaskSet.of(0, 4), Cause.PEER_LOST) in ledger.events
    outcome = ledger.do(complete(old, ended(0, 10)))
    assert outcome == Completed(TaskSet.of(4, 10), EMPTY, TaskSet.of(0, 4))
    assert ledger.do(complete(new, ended(0, 4))) == Completed(TaskSet.of(0, 4))
    assert ledger.state is JobState.SUCCEEDED
    assert ledger.machine.jobs[JOB].results_refused == 4


def test_load_is_what_peers_own_and_falls_to_nothing(ledger: Ledger) -> None:
    grant = ledger.grant(ALL)
    row = ledger.machine.peers[P]
    assert (row.owned, row.load_us) == (10, 10 * ledger.machine.estimate_us)
    ledger.do(complete(grant, ended(0, 10)))
    assert (row.owned, row.load_us) == (0, 0)


def test_commands_of_one_entry_apply_in_order() -> None:
    ledger = Ledger()
    ledger.do(up(P), SubmitJob(JOB, spec()), Place(JOB, ALL, P, 1))
    assert [e for e in ledger.events if isinstance(e, Granted)] == [Granted(JOB, 3, P, 1, ALL)]


def test_a_gap_in_the_ledger_is_never_applied(ledger: Ledger) -> None:
    with pytest.raises(AssertionError, match="without gaps"):
        ledger.machine.apply(Committed(99, 0, 0, ()))


def test_ledger_time_never_runs_backwards(ledger: Ledger) -> None:
    index = ledger.machine.applied_index + 1
    ledger.machine.apply(Committed(index, 1_000, 0, ()))
    ledger.machine.apply(Committed(index + 1, 500, 0, ()))
    assert ledger.machine.stamp_ms == 1_000


# --- repeats --------------------------------------------------------------------------------------


def test_a_repeated_cancel_spares_a_job_that_came_after_it() -> None:
    ledger = Ledger()
    assert isinstance(ledger.do(Cancel(JOB), request=7), Rejected)
    ledger.do(SubmitJob(JOB, spec()))
    ledger.do(Cancel(JOB), request=7)
    assert ledger.events == []
    assert ledger.machine.jobs[JOB].waiting == ALL
    ledger.do(Cancel(JOB), request=8)
    assert ledger.state is JobState.CANCELLED


def test_a_repeated_placement_does_not_take_a_task_that_waits_again() -> None:
    ledger = Ledger()
    ledger.do(up(P), SubmitJob(JOB, spec(TaskSet.of(0, 1), retries=1)))
    place = Place(JOB, TaskSet.of(0, 1), P, 1)
    outcome = ledger.do(place, request=7)
    assert isinstance(outcome, Placed)
    ledger.do(Complete(JOB, outcome.grant, (ended(0, 1, Cause.EXIT),)))
    again = ledger.do(place, request=7)
    assert isinstance(again, Placed)
    assert (again.tasks, ledger.events) == (EMPTY, [])
    assert ledger.machine.jobs[JOB].waiting == TaskSet.of(0, 1)


def test_a_repeat_of_what_was_refused_is_refused_again() -> None:
    """Its proposer may have missed the first outcome: by a snapshot, for one."""
    ledger = Ledger()
    first = ledger.do(Cancel(JOB), request=7)
    ledger.do(SubmitJob(JOB, spec()))
    assert ledger.do(Cancel(JOB), request=7) == first == Rejected("not-found", f"no job {JOB}")
    assert ledger.state is JobState.RUNNING


def test_what_is_known_of_repeats_is_bounded() -> None:
    ledger = Ledger()
    for request in range(REPEATS_KNOWN_MAX + 10):
        ledger.do(Cancel(JOB), request=request)
    assert len(ledger.machine._taken) == REPEATS_KNOWN_MAX


def test_a_restored_machine_forgets_the_same_repeats() -> None:
    commands = [Envelope(P, n, Cancel(JobId(f"no-{n}"))) for n in range(REPEATS_KNOWN_MAX + 5)]
    whole, restored = Machine(), Machine()
    whole.apply(Committed(1, 0, 0, tuple(commands)))
    restore_machine(restored, encode_machine(whole))
    for index in (2, 3):
        late = Committed(index, 0, 0, (Envelope(P, 100_000 + index, Cancel(JOB)), commands[-1]))
        assert restored.apply(late) == whole.apply(late)
    assert encode_machine(restored) == encode_machine(whole)
    assert (P, 6) not in restored._taken
    assert (P, 7) in restored._taken
