"""Tasks that must not start twice, at their owner: nothing begins before that is committed."""

from __future__ import annotations

import msgspec

from p2psched.core.catch_up import catch_up
from p2psched.core.owner import Owner, StartBatch, StopBatch
from p2psched.core.scheduler import Scheduler
from p2psched.core.separation_effects import Recalled
from p2psched.model import chunks, items
from p2psched.model.commands import (
    Cancel,
    Drain,
    DrainMode,
    Forget,
    PeerDown,
    PeerUp,
)
from p2psched.model.execution import Batch, Ended, Progress
from p2psched.model.job import Cause, Segment
from p2psched.model.once import Once, Start, Started, Unsure
from p2psched.model.reconcile import OwnedPart, Recollection
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, info, spec

ALL = TaskSet.of(0, 4)
FIRST = TaskSet.of(0, 1)
HIS = items.pack({"exit": 0})


class Works:
    """The owner of four such tasks, with two slots, beside the ledger."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        wanted = msgspec.structs.replace(spec(4), start=Start.ONCE)
        self.job = self.ledger.submit(wanted)
        self.owner = Owner(self.ledger.machine, slots=2)
        self.grant = self.ledger.place(self.job).grant
        self.owner.on_granted(self.job, self.grant, ALL)
        self.proposed: list[Once] = []
        self.now_ms = 0

    def turn(self) -> list[Batch]:
        """One round. What it starts; what it proposes waits for `commit`."""
        effects = self.owner.start_batches()
        self.owner.starting.propose(self._propose, self.now_ms)
        return [effect.batch for effect in effects if isinstance(effect, StartBatch)]

    def _propose(self, command: Once) -> int:
        self.proposed.append(command)
        return len(self.proposed)

    def commit(self) -> None:
        for command in self.proposed:
            outcome = self.ledger.do(command)
            assert self.owner.on_outcome(self.proposed.index(command) + 1, outcome)


def test_nothing_starts_before_it_is_committed() -> None:
    works = Works()
    assert works.turn() == []
    (command,) = works.proposed
    assert command == Once(works.job.id, Started(works.grant, TaskSet.of(0, 2), P, 1))
    assert works.turn() == []
    works.commit()
    assert [batch.tasks.first for batch in works.turn()] == [1, 0]


def test_more_is_not_said_than_has_a_slot() -> None:
    works = Works()
    works.turn()
    works.commit()
    works.turn()
    assert works.turn() == []
    assert len(works.proposed) == 1


def test_what_is_revoked_while_it_waits_for_the_commit_never_starts() -> None:
    works = Works()
    works.turn()
    works.ledger.do(Cancel(works.job.id))
    assert works.owner.on_revoked(works.job.id, works.grant, ALL, Cause.CANCELLED) == []
    works.commit()
    assert works.turn() == []
    assert works.owner.kept() == ()


def test_a_job_may_be_forgotten_in_the_entry_that_brings_the_outcome() -> None:
    """Its revocation is heard behind that."""
    works = Works()
    works.turn()
    works.ledger.do(Cancel(works.job.id))
    works.ledger.do(Forget(works.job.id))
    works.commit()
    assert works.owner.on_revoked(works.job.id, works.grant, ALL, Cause.CANCELLED) == []
    works.owner.on_job_ended(works.job.id)
    assert works.turn() == []
    assert works.owner.kept() == ()


def test_who_is_declared_down_meanwhile_starts_nothing_until_it_is_back() -> None:
    works = Works()
    works.turn()
    works.ledger.do(PeerDown(P, 1, "not heard"))
    works.commit()
    assert works.turn() == []
    again = msgspec.structs.replace(info(P), incarnation=2)
    works.ledger.do(PeerUp(again, works.owner.kept(), continues=1))
    works.proposed.clear()
    assert works.turn() == []
    works.commit()
    assert len(works.turn()) == 2


def test_a_drained_peer_gives_back_what_was_committed_and_has_not_begun() -> None:
    works = Works()
    works.turn()
    works.commit()
    works.ledger.do(Drain(P, DrainMode.ON))
    for back in works.owner.give_back():
        works.ledger.do(back)
    assert works.job.waiting == ALL
    assert works.job.doubtful == EMPTY


def test_a_program_whose_end_nobody_saw_is_not_started_again() -> None:
    works = Works()
    works.turn()
    works.commit()
    for batch in works.turn():
        works.owner.on_executed(Ended(batch.id, EMPTY))
    works.proposed.clear()
    works.turn()
    unsure = [each.step for each in works.proposed if isinstance(each.step, Unsure)]
    assert [step.tasks.first for step in unsure] == [1, 0]
    for step in unsure:
        works.ledger.do(Once(works.job.id, step))
    assert works.job.doubtful == TaskSet.of(0, 2)


def test_a_batch_that_never_began_is_started_again() -> None:
    works = Works()
    works.turn()
    works.commit()
    (one, _) = works.turn()
    works.owner.on_executed(Ended(one.id, one.tasks))
    works.proposed.clear()
    assert works.turn() == []
    works.commit()
    assert [batch.tasks for batch in works.turn()] == [one.tasks]


def test_after_a_snapshot_what_may_have_begun_and_is_not_known_is_not_begun() -> None:
    works = Works()
    works.ledger.do(Once(works.job.id, Started(works.grant, FIRST, P, 1)))
    fresh = Owner(works.ledger.machine, slots=2)
    assert catch_up(fresh, works.ledger.machine, info(P)) == []
    assert [tasks for *_, tasks in fresh.starting.parts()] == [FIRST]
    works.owner = fresh
    works.turn()
    assert [type(command.step) for command in works.proposed] == [Unsure, Started]


def test_after_a_snapshot_what_is_unknown_and_runs_here_goes_on() -> None:
    works = Works()
    works.turn()
    works.commit()
    assert len(works.turn()) == 2
    works.ledger.do(PeerDown(P, 1, "not heard"))
    assert works.job.doubtful == TaskSet.of(0, 2)
    stopped = catch_up(works.owner, works.ledger.machine, info(P))
    assert [effect for effect in stopped if isinstance(effect, StopBatch)] == []


def test_while_the_ledger_is_silent_other_tasks_go_on() -> None:
    works = Works()
    other = works.ledger.submit(spec(2), "other")
    works.owner.on_granted(other, works.ledger.place(other).grant, other.spec.tasks)
    assert works.turn() == []
    works.now_ms += 1_000
    assert works.turn() == []
    works.now_ms += 2_000
    works.turn()
    one, two = works.turn()
    assert (one.job, two.job) == (other.id, other.id)
    works.commit()
    assert works.turn() == [], "no slot is free"
    done = Segment(one.tasks.first, one.tasks.first + 1, Cause.OK, chunks.pack([HIS]))
    works.owner.on_executed(Progress(one.id, (done,)))
    works.owner.on_executed(Ended(one.id, EMPTY))
    assert [batch.job for batch in works.turn()] == [works.job.id]


def test_that_the_ledger_has_not_said_it_starts_is_a_reason_to_stand_still() -> None:
    works = Works()
    works.turn()
    assert "the ledger has not taken yet that it starts" in works.owner.standstill()
    works.ledger.do(PeerDown(P, 1, "not heard"))
    works.commit()
    works.turn()
    assert "the ledger takes this peer for lost" in works.owner.standstill()
    works.ledger.do(
        PeerUp(msgspec.structs.replace(info(P), incarnation=2), works.owner.kept(), continues=1)
    )
    assert works.owner.standstill() == ""


def test_what_is_held_and_has_not_begun_does_not_begin() -> None:
    """The executor has it, and stood still."""
    works = Works()
    works.turn()
    works.commit()
    late, begun = works.turn()
    assert works.owner.stop_unbegun([late.id]) == [], "it is in time"
    assert works.owner.hold(works.job.id) == []
    assert works.owner.stop_unbegun([late.id]) == [StopBatch(late.id, Cause.PEER_LOST)]
    assert works.owner.stop_unbegun([late.id]) == [], "it is on its way"
    works.owner.on_executed(Ended(late.id, late.tasks))
    assert works.turn() == []
    works.owner.go_on()
    works.proposed.clear()
    assert works.turn() == []
    works.commit()
    (again,) = works.turn()
    assert (again.tasks, again.attempt) == (late.tasks, late.attempt)
    assert begun.id in works.owner.batches


def test_without_a_majority_nothing_of_it_is_begun_again() -> None:
    """By a process that knows of it from its disk."""
    works = Works()
    fresh = Scheduler(info(P))
    spec_of = works.job.full
    assert spec_of is not None
    part = OwnedPart(works.job.id, works.grant, 1, ALL)
    found = Recollection(
        incarnation=1, since=1, cursor=0, away_ms=0, owned=(part,), specs={works.job.id: spec_of}
    )
    fresh.separation.on_event(Recalled(0, found))
    fresh.separation.on_begin(0)
    fresh.separation.on_clock(60_000, led=False, up=False)
    assert list(fresh.owner.owned()) == []
