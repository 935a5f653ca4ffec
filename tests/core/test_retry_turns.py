"""Where and in which order tasks run again that have ended badly."""

from __future__ import annotations

from msgspec.structs import replace

from p2psched.core.coordinator import Coordinator
from p2psched.core.jobs import Job
from p2psched.core.placement import Candidate
from p2psched.core.retry_turns import turns
from p2psched.core.retrying import SINK_STEPS_MAX
from p2psched.model import chunks
from p2psched.model.commands import (
    Cancel,
    Command,
    Drain,
    DrainMode,
    PeerDown,
    Place,
    Retried,
    Retry,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.needs import Needs, Offer, Offers
from p2psched.model.retry import RetryRule, usual_rule
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, R, spec

ELSEWHERE = RetryRule(Cause.EXIT, 9, elsewhere=True)


def coordinator(ledger: Ledger, percent: int = 100) -> Coordinator:
    found = Coordinator(P, ledger.machine, window_ms=2_500, retry_percent=percent)
    found.on_coordinator(0, is_self=True)
    found.find_dead(0, {})
    return found


def placed(commands: list[Command], job: Job) -> dict[PeerId, TaskSet]:
    found: dict[PeerId, TaskSet] = {}
    for command in commands:
        if isinstance(command, Place) and command.job == job.id:
            found[command.peer] = found.get(command.peer, EMPTY) | command.tasks
    return found


def test_what_ended_badly_there_runs_elsewhere() -> None:
    ledger = Ledger(slots=1)
    job = ledger.submit(spec(1, ELSEWHERE))
    tried: list[PeerId] = []
    for _ in range(3):
        (peer,) = placed(coordinator(ledger).place(), job)
        tried.append(peer)
        ledger.run(job, Cause.EXIT, peer)
    assert sorted(tried) == [P, Q, R]
    assert placed(coordinator(ledger).place(), job), "where all have failed any will do"


def test_it_waits_for_a_busy_peer_rather_than_go_back() -> None:
    ledger = Ledger(slots=1)
    job = ledger.submit(spec(1, ELSEWHERE))
    ledger.run(job, Cause.EXIT, P)
    ledger.do(PeerDown(R, 1, "gone"))
    other = ledger.submit(spec(60), "other")
    ledger.place(other, Q)
    assert placed(coordinator(ledger).place(), job) == {}


def test_it_goes_back_if_no_other_peer_takes_tasks() -> None:
    ledger = Ledger(slots=1)
    job = ledger.submit(spec(1, ELSEWHERE))
    ledger.run(job, Cause.EXIT, P)
    ledger.do(PeerDown(R, 1, "gone"))
    ledger.do(Drain(Q, DrainMode.ON))
    assert list(placed(coordinator(ledger).place(), job)) == [P]


def test_it_goes_back_if_no_other_peer_has_what_it_needs() -> None:
    ledger = Ledger(slots=1)
    ledger.do(Offer(P, 1, Offers(gpus=1)))
    job = ledger.submit(replace(spec(1, ELSEWHERE), needs=Needs(gpus=1)))
    ledger.run(job, Cause.EXIT, P)
    assert list(placed(coordinator(ledger).place(), job)) == [P]


def test_tasks_that_failed_in_different_places_avoid_each_its_own() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(2, ELSEWHERE))
    first, second = TaskSet.of(0, 1), TaskSet.of(1, 2)
    ledger.end(job, ledger.place(job, P, first), Cause.EXIT)
    ledger.end(job, ledger.place(job, Q, second), Cause.EXIT)
    ledger.do(PeerDown(R, 1, "gone"))
    assert placed(coordinator(ledger).place(), job) == {Q: first, P: second}


def test_a_demoted_task_comes_behind_what_was_submitted_before_it_failed() -> None:
    ledger = Ledger(slots=1)
    for peer in (Q, R):
        ledger.do(PeerDown(peer, 1, "gone"))
    job = ledger.submit(spec(1, RetryRule(Cause.EXIT, 9, demote=True)))
    between = ledger.submit(spec(1), "between")
    ledger.run(job, Cause.EXIT)
    ledger.submit(spec(1), "later")
    order = [c.job for c in coordinator(ledger).place() if isinstance(c, Place)]
    assert order == ["between", "j"]  # there is no room for more
    assert between.index < job.sunk_at[1]


def test_without_other_work_retries_get_everything() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(12, RetryRule(Cause.EXIT, 9)))
    ledger.run(job, Cause.EXIT)
    found = placed(coordinator(ledger, percent=0).place(), job)
    assert TaskSet.union(found.values()) == job.spec.tasks


def test_beside_first_attempts_retries_get_what_their_budget_allows() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(12, RetryRule(Cause.EXIT, 9)))
    ledger.run(job, Cause.EXIT)
    ledger.submit(spec(50), "other")
    assert placed(coordinator(ledger, percent=0).place(), job) == {}
    # A tenth of 12 slots fills a bucket of 12 s: 24 tasks of half a second; 1 % of it two.
    assert sum(map(len, placed(coordinator(ledger, percent=1).place(), job).values())) == 2
    assert sum(map(len, placed(coordinator(ledger, percent=100).place(), job).values())) > 2


def test_what_is_spent_comes_back_with_time_and_no_more_than_the_bucket_holds() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(12, RetryRule(Cause.EXIT, 9)))
    ledger.run(job, Cause.EXIT)
    ledger.submit(spec(50), "other")
    budget = coordinator(ledger, percent=10).budget
    peers = [Candidate(peer, 1, 4, 0, 0) for peer in (P, Q, R)]

    def allowed(cost_us: int) -> int:
        return len(budget.allowed(job, job.spec.tasks, cost_us, peers)[1])

    full = allowed(2_000_000)
    assert full == 6  # a tenth of 12 slots, for ten seconds
    budget.spend(6, 2_000_000)
    assert allowed(2_000_000) == 0
    budget.on_time(1_000, 12)
    assert allowed(400_000) == 3
    budget.on_time(1_000_000, 12)
    assert allowed(2_000_000) == full


def test_where_no_slot_is_free_a_full_bucket_gives_each_peer_one() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(12, RetryRule(Cause.EXIT, 9)))
    ledger.run(job, Cause.EXIT)
    ledger.submit(spec(50), "other")
    budget = coordinator(ledger, percent=10).budget
    busy = [Candidate(peer, 1, 4, 4, 0) for peer in (P, Q, R)]
    assert budget.allowed(job, job.spec.tasks, 1_000, busy) == (busy, TaskSet.of(0, 3))
    budget.spend(3, 1_000)
    assert budget.allowed(job, job.spec.tasks, 1_000, busy) == ([], EMPTY)


def test_a_retry_costs_what_its_bad_ends_took() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(2, RetryRule(Cause.TIMEOUT, 9)))
    found = coordinator(ledger)
    assert found.budget.cost_us(job, 500_000) == 500_000
    segment = Segment(0, 2, Cause.TIMEOUT, chunks.pack([b"", b""]), busy_us=20_000_000)
    found.on_event(Retried(job.id, 1, P, segment))
    assert found.budget.cost_us(job, 500_000) == 10_000_000
    found.budget.on_job_ended(job.id)
    assert found.budget.cost_us(job, 500_000) == 500_000


def test_each_timeout_sinks_a_task_a_step_and_never_under_the_floor() -> None:
    """First behind what was there at its first limit, then at its second; from the third on it
    stays where it is, and what is submitted later comes later."""
    ledger = Ledger(slots=1)
    job = ledger.submit(spec(1, replace(usual_rule(Cause.TIMEOUT, 20), elsewhere=False)))
    others = [ledger.submit(spec(1), "0")]
    behind: list[list[JobId]] = []
    for number in range(1, 6):
        ledger.run(job, Cause.TIMEOUT, P)
        others.append(ledger.submit(spec(1), str(number)))
        waiting = [(each, each.ready) for each in (job, *others)]
        order = [turn.job.id for turn in turns(sorted(waiting, key=lambda pair: pair[0].index))]
        behind.append(order[: order.index(job.id)])
    assert ["".join(before) for before in behind] == ["0", "01", "012", "012", "012"]
    assert job.sunk.split(job.spec.tasks) == [(SINK_STEPS_MAX, job.spec.tasks)]
    ledger.do(Cancel(job.id))
    shrunk = ledger.submit(spec(1), "last")
    assert shrunk.places(shrunk.spec.tasks) == [(0, shrunk.spec.tasks)]


def test_a_retry_by_hand_lifts_what_has_sunk() -> None:
    ledger = Ledger(slots=4)
    job = ledger.submit(spec(2, replace(usual_rule(Cause.TIMEOUT, 1), elsewhere=False)))
    ledger.end(job, ledger.place(job, P, TaskSet.of(0, 1)), Cause.TIMEOUT)
    one, other = TaskSet.of(0, 1), TaskSet.of(1, 2)
    assert job.sunk.split(job.spec.tasks) == [(0, other), (1, one)]
    first = job.places(one)[0][0]
    ledger.end(job, ledger.place(job, P, other), Cause.TIMEOUT)
    assert job.places(other)[0][0] > first
    for _ in range(2):
        ledger.run(job, Cause.TIMEOUT, P)
    assert job.failed == job.spec.tasks
    assert job.full is None
    ledger.do(Retry(job.id, spec(2, replace(usual_rule(Cause.TIMEOUT, 1), elsewhere=False))))
    assert job.sunk.split(job.spec.tasks) == [(0, job.spec.tasks)]
