"""Large results: who holds them, when they are lost, found, and made again."""

from __future__ import annotations

from p2psched.core import keeping
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    JobEnded,
    JobReopened,
    PeerDown,
    ResultsLost,
    Retry,
    SubmitJob,
)
from p2psched.model.ids import PeerId
from p2psched.model.job import JobState
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_keeping import SPEC, finish, held, large, ledger, value
from tests.core.test_machine import (
    ALL,
    JOB,
    Ledger,
    P,
    Q,
    blob_ref,
    complete,
    spec,
    up,
)

__all__ = ["ledger"]  # the fixture


def named(index: int, name: str, *holders: PeerId) -> ResultBlob:
    return ResultBlob(index, name, blob_ref(100 + index), holders)


def test_a_large_result_is_known_with_its_holders_and_its_bytes(ledger: Ledger) -> None:
    before = ledger.machine.result_bytes
    finish(ledger, large(9, value(9, P, Q), named(9, "weights", P)))
    job = ledger.machine.jobs[JOB]
    assert [blob.holders for blob in job.blobs.values()] == [(P, Q), (P,)]
    assert job.lost == EMPTY
    sizes = blob_ref(9).size + blob_ref(109).size
    assert ledger.machine.result_bytes - before == job.result_bytes > sizes


def test_a_large_result_of_an_old_grant_is_not_known(ledger: Ledger) -> None:
    old = ledger.grant(ALL)
    ledger.do(PeerDown(P, 1, ""))
    ledger.grant(ALL, Q)
    ledger.do(complete(old, large(9, value(9, P))))
    assert ledger.machine.jobs[JOB].blobs == {}


def test_a_result_that_nobody_holds_when_it_comes_is_lost_and_said_to_be(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9)))
    assert [type(event) for event in ledger.events][-2:] == [ResultsLost, JobEnded]
    assert ledger.machine.jobs[JOB].lost == TaskSet.of(9, 10)


def test_the_last_holder_that_has_it_no_more_loses_a_result(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P, Q)))
    ledger.do(held(P, value(9)))
    assert ledger.events == []
    ledger.do(held(Q, value(9)))
    assert ledger.events == [ResultsLost(JOB, TaskSet.of(9, 10))]
    assert ledger.machine.jobs[JOB].lost == TaskSet.of(9, 10)
    ledger.do(held(Q, value(9)))
    assert ledger.events == []


def test_a_result_that_is_found_again_is_lost_no_more(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P)))
    ledger.do(held(P, value(9)))
    ledger.do(held(Q, value(9), is_held=True))
    job = ledger.machine.jobs[JOB]
    assert (job.lost, job.blobs[9, ""].holders) == (EMPTY, (Q,))


def test_a_task_is_lost_until_all_its_parts_are_found(ledger: Ledger) -> None:
    parts = value(9, P), named(9, "weights", P)
    finish(ledger, large(9, *parts))
    ledger.do(held(P, *parts))
    assert ledger.events == [ResultsLost(JOB, TaskSet.of(9, 10))]
    ledger.do(held(Q, parts[0], is_held=True))
    assert ledger.machine.jobs[JOB].lost == TaskSet.of(9, 10)
    ledger.do(held(Q, parts[1], is_held=True))
    assert ledger.machine.jobs[JOB].lost == EMPTY


def test_holders_are_sorted_and_named_once(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, Q)))
    for _ in range(2):
        ledger.do(held(P, value(9), is_held=True))
    assert ledger.machine.jobs[JOB].blobs[9, ""].holders == (P, Q)


def test_a_report_on_other_bytes_than_the_jobs_is_not_meant(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P)))
    other = ResultBlob(9, "", blob_ref(3))
    ledger.do(held(P, other))
    ledger.do(held(Q, other, is_held=True))
    ledger.do(held(P, named(9, "none"), value(8)))
    assert ledger.machine.jobs[JOB].blobs[9, ""].holders == (P,)


def test_a_lost_result_runs_again_and_its_old_bytes_count_no_more(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P)))
    ledger.do(held(P, value(9)))
    job = ledger.machine.jobs[JOB]
    before = job.result_bytes
    ledger.do(Retry(JOB, SPEC))
    assert ledger.events == [JobReopened(JOB, TaskSet.of(9, 10), 2)]
    assert (job.lost, job.blobs) == (EMPTY, {})
    assert job.result_bytes == before - blob_ref(9).size
    ledger.do(held(P, value(9), is_held=True))  # it comes too late
    assert job.blobs == {}
    ledger.do(complete(ledger.grant(ALL, Q), large(9, value(9, Q))))
    assert (ledger.state, job.blobs[9, ""].holders) == (JobState.SUCCEEDED, (Q,))


def test_a_result_whose_holders_are_all_down_runs_again_only_if_it_is_asked_for(
    ledger: Ledger,
) -> None:
    finish(ledger, large(8, value(8, P, Q)), large(9, value(9, P)))
    ledger.do(PeerDown(P, 1, ""))
    job = ledger.machine.jobs[JOB]
    assert job.lost == EMPTY  # it comes back with its holder
    assert keeping.unreachable(ledger.machine, job) == TaskSet.of(9, 10)
    assert keeping.live_holders(ledger.machine, job.blobs[8, ""]) == (Q,)
    ledger.do(Retry(JOB, SPEC))
    assert job.waiting == TaskSet.of(9, 10)


def test_a_result_whose_holder_is_back_does_not_run_again(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P)))
    ledger.do(PeerDown(P, 1, ""))
    ledger.do(up(P, 2))
    ledger.do(Retry(JOB, SPEC))
    assert ledger.state is JobState.SUCCEEDED


def test_a_part_that_is_named_twice_counts_once(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P), value(9, Q)))
    job = ledger.machine.jobs[JOB]
    assert job.blobs[9, ""].holders == (Q,)
    twice = job.result_bytes
    ledger.do(held(Q, value(9)))
    ledger.do(Retry(JOB, SPEC))
    assert twice - job.result_bytes == blob_ref(9).size


def test_a_report_on_many_results_costs_about_one_look_at_each() -> None:
    """Counted in looks, not in time: a job of thousands of results must not stop a peer."""
    count = 2_000
    ledger = Ledger()
    ledger.do(up(P), SubmitJob(JOB, spec(TaskSet.of(0, count))))
    grant = ledger.grant(TaskSet.of(0, count))
    values = [value(index, P, Q) for index in range(count)]
    ledger.do(complete(grant, *(large(blob.index, blob) for blob in values)))
    job = ledger.machine.jobs[JOB]
    looks = _Counted(job.blobs)
    job.blobs = looks
    ledger.machine.jobs[JOB] = job
    for peer in (P, Q):
        keeping.held(ledger.machine, held(peer, *values))
    assert len(job.lost) == count
    assert looks.passes <= 4


class _Counted(dict[tuple[int, str], ResultBlob]):
    """Counts how often somebody goes through all of it."""

    passes = 0

    def items(self):  # type: ignore[no-untyped-def]  # the view of a dictionary has no public type
        self.passes += 1
        return super().items()

    def values(self):  # type: ignore[no-untyped-def]
        self.passes += 1
        return super().values()
