"""Exclusive tasks at their owner: when it asks for more time, and from where it counts."""

from __future__ import annotations

import msgspec

from p2psched.core.leasing import LEAVE_MS, HoldLease
from p2psched.core.levels import GONE_LEVEL, KNOWN_LEVEL
from p2psched.core.owner import Owner, OwnerEffect, StartBatch, StopBatch
from p2psched.model.commands import Acknowledged, Outcome, PeerDown
from p2psched.model.execution import Batch, Ended
from p2psched.model.job import Cause
from p2psched.model.once import Gone, Once, Start, Started, Unsure
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, spec

ALL = TaskSet.of(0, 3)
LEASE_MS = 9_000


class Works:
    """The owner of three such tasks, with two slots, beside the ledger. Its clock is another."""

    def __init__(self, *, level: int = KNOWN_LEVEL) -> None:
        self.ledger = Ledger(level=level)
        wanted = msgspec.structs.replace(spec(3), start=Start.EXCLUSIVE, lease_ms=LEASE_MS)
        self.job = self.ledger.submit(wanted)
        self.owner = Owner(self.ledger.machine, slots=2)
        self.grant = self.ledger.place(self.job).grant
        self.owner.on_granted(self.job, self.grant, ALL)
        self.proposed: dict[int, Once] = {}
        self.count = 0

    def turn(self, now_ms: int) -> list[OwnerEffect]:
        """One round. What it proposes waits for `commit`."""
        return [
            *self.owner.start_batches(),
            *self.owner.begin_and_hold(self._propose, now_ms),
        ]

    def _propose(self, command: Once) -> int:
        self.count += 1
        self.proposed[self.count] = command
        return self.count

    def commit(self, outcome: Outcome | None = None) -> list[Once]:
        """All that is proposed. What that was."""
        proposed, self.proposed = self.proposed, {}
        for request, command in proposed.items():
            committed = self.ledger.do(command)
            assert self.owner.on_outcome(request, outcome or committed)
        return list(proposed.values())

    def begin(self, now_ms: int) -> list[Batch]:
        """Proposed then, and started a second later."""
        self.turn(now_ms)
        self.commit()
        effects = self.turn(now_ms + 1_000)
        return [effect.batch for effect in effects if isinstance(effect, StartBatch)]


def test_a_lease_counts_from_where_its_start_was_proposed() -> None:
    works = Works()
    batches = works.begin(50_000)
    assert [batch.until_ms for batch in batches] == [50_000 + LEASE_MS] * 2


def test_it_is_renewed_after_a_third_in_one_command_for_all_that_runs() -> None:
    works = Works()
    works.begin(50_000)
    works.turn(52_999)
    assert not works.proposed
    works.turn(53_000)
    works.turn(54_000)
    (renewal,) = works.commit()
    assert renewal == Once(works.job.id, Started(works.grant, TaskSet.of(0, 2), P, 1))
    held = works.turn(55_000)
    assert held == [HoldLease(1, 53_000 + LEASE_MS), HoldLease(2, 53_000 + LEASE_MS)]


def test_the_word_that_it_was_a_repeat_says_nothing() -> None:
    works = Works()
    works.turn(50_000)
    works.commit(Acknowledged())
    assert works.turn(51_000) == [], "it may have started, and nobody knows for how long"
    works.commit()
    started = [each for each in works.turn(52_000) if isinstance(each, StartBatch)]
    assert [each.batch.until_ms for each in started] == [51_000 + LEASE_MS] * 2
    works.turn(54_000)
    works.commit(Acknowledged())
    assert works.turn(54_500) == []
    assert len(works.proposed) == 1, "the next renewal is on its way"


def test_what_runs_out_of_time_is_told_to_end_and_is_nobody_s_then() -> None:
    works = Works()
    batches = works.begin(50_000)
    works.ledger.do(PeerDown(P, 1, "not heard"))
    assert works.turn(50_000 + LEASE_MS - LEASE_MS // 10 - 1) == []
    effects = works.turn(50_000 + LEASE_MS - LEASE_MS // 10)
    assert effects == [StopBatch(batch.id, Cause.PEER_LOST) for batch in batches]
    assert works.turn(50_000 + LEASE_MS) == []
    works.owner.on_executed(Ended(batches[0].id, EMPTY))
    works.turn(50_000 + LEASE_MS)
    (unsure,) = works.commit()
    assert unsure.step == Unsure(works.grant, batches[0].tasks)


def test_what_never_began_has_to_be_granted_time_anew() -> None:
    works = Works()
    (one, _) = works.begin(50_000)
    works.owner.on_executed(Ended(one.id, one.tasks))
    assert works.turn(52_000) == []
    works.commit()
    (again,) = [each for each in works.turn(53_000) if isinstance(each, StartBatch)]
    assert (again.batch.tasks, again.batch.until_ms) == (one.tasks, 52_000 + LEASE_MS)


def test_who_wants_to_stop_ends_them_and_says_that_nobody_has_to_wait() -> None:
    works = Works()
    (one, two) = works.begin(50_000)
    assert not works.owner.may_leave(51_000)
    assert works.turn(51_000) == [StopBatch(each.id, Cause.PEER_LOST) for each in (one, two)]
    works.owner.on_executed(Ended(one.id, EMPTY))
    works.owner.on_executed(Ended(two.id, two.tasks))  # it had not begun
    works.turn(51_100)
    assert not works.owner.may_leave(51_100), "the ledger has not heard of it"
    said = [command.step for command in works.commit()]
    assert said[:2] == [Gone(works.grant, one.tasks), Gone(works.grant, two.tasks)]
    assert works.owner.may_leave(51_200)
    assert works.job.waiting == one.tasks | two.tasks


def test_a_clean_stop_waits_for_what_does_not_end_for_a_moment_only() -> None:
    works = Works()
    works.begin(50_000)
    assert not works.owner.may_leave(51_000)
    assert not works.owner.may_leave(51_000 + LEAVE_MS - 1)
    assert works.owner.may_leave(51_000 + LEAVE_MS)


def test_who_runs_nothing_exclusive_or_is_of_an_older_cluster_stops_at_once() -> None:
    assert Works().owner.may_leave(50_000)
    older = Works(level=GONE_LEVEL - 1)
    older.begin(50_000)
    assert older.owner.may_leave(51_000)
    assert older.turn(51_000) == []
