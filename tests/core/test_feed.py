"""A follower and who feeds it: it runs what it owns, misses nothing, and repeats nothing."""

from __future__ import annotations

import msgspec

from p2psched.core.feed import HEARD_MS, members_of
from p2psched.core.follower import (
    FEED_PATIENCE_MS,
)
from p2psched.core.follower_events import Lost
from p2psched.core.roll import REPORT_MS, Reporter, Roll
from p2psched.core.scheduler_events import Executed, Leaving, Renewed
from p2psched.model import chunks
from p2psched.model.commands import (
    Cancel,
    Completed,
    Drain,
    DrainMode,
    PeerDown,
    PeerUp,
    Place,
    SubmitJob,
)
from p2psched.model.execution import Ended, Progress
from p2psched.model.feed_messages import FeedElsewhere, FeedReport, FeedReported
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.feed_rig import GROUP, JOB, A, B, F, Holder, L, Rig, info, spec

FOUR = TaskSet.of(0, 4)


def up() -> Rig:
    """The ledger knows the follower."""
    rig = Rig()
    rig.begin()
    assert rig.follower.is_known
    return rig


def end(rig: Rig, number: int = 0) -> None:
    """A batch that was started ends well."""
    batch = rig.started[number]
    first, last = next(iter(batch.tasks)), max(batch.tasks)
    data = chunks.pack([b"r"] * len(batch.tasks))
    segment = Segment(first, last + 1, Cause.OK, data, 1_000)
    rig.step(Executed(rig.now_ms, Progress(batch.id, (segment,))))
    rig.step(Executed(rig.now_ms, Ended(batch.id, EMPTY)))


def is_fed(rig: Rig) -> bool:
    return rig.follower.is_fed


def is_short(rig: Rig) -> bool:
    return rig.follower.is_short


def owned(rig: Rig) -> TaskSet:
    return TaskSet.union(list(rig.follower.owner.held().values()))


def test_it_runs_what_is_granted_and_its_results_are_accepted() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    assert owned(rig) == FOUR
    assert len(rig.started) == 2
    for number in range(2):
        end(rig, number)
    rig.settle()
    while len(rig.started) < 4:
        end(rig, len(rig.started) - 1)
        rig.settle()
    end(rig, 3)
    end(rig, 2)
    rig.settle()
    assert owned(rig) == EMPTY
    assert rig.holders[L].machine.jobs[JOB].succeeded == FOUR
    assert not rig.follower.machine.jobs, "an ended job is nothing to keep"


def test_nothing_is_said_to_a_follower_that_an_entry_does_not_concern() -> None:
    rig = up()
    told = len(rig.told)
    rig.commit(SubmitJob(JobId("other"), spec()), Place(JobId("other"), FOUR, A, 1))
    rig.settle()
    assert len(rig.told) == told


def test_a_spec_is_told_once() -> None:
    rig = up()
    rig.submit(TaskSet.of(0, 1), TaskSet.of(1, 2), TaskSet.of(2, 3))
    rig.settle()
    rig.commit(Place(JOB, TaskSet.of(3, 4), F, 1))
    rig.settle()
    specs = [job.spec for feed in rig.told for job in feed.jobs if job.spec is not None]
    assert len(specs) == 1
    assert owned(rig) == FOUR


def test_what_is_cancelled_ends() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    rig.commit(Cancel(JOB))
    rig.settle()
    assert len(rig.stopped) == 2
    assert owned(rig) == EMPTY


def test_grants_that_came_while_its_feeder_was_gone_are_told_by_the_next() -> None:
    rig = up()
    first = rig.follower.feeder
    assert first is not None
    rig.cut.add(first)
    rig.submit(FOUR)
    rig.run(FEED_PATIENCE_MS + 200)
    assert rig.follower.feeder not in (first, L)
    assert owned(rig) == FOUR
    assert len(rig.started) == 2


def test_what_runs_is_not_begun_again_when_all_is_told_anew() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    started = len(rig.started)
    assert rig.follower.feeder is not None
    rig.step(Lost(rig.now_ms, rig.follower.feeder))
    rig.settle()
    assert len(rig.started) == started
    assert not rig.stopped


def test_what_was_taken_away_between_two_feeders_ends() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    first = rig.follower.feeder
    assert first is not None
    rig.cut.add(first)
    rig.commit(Cancel(JOB))
    rig.run(FEED_PATIENCE_MS + 200)
    assert len(rig.stopped) == 2
    assert owned(rig) == EMPTY


def test_a_feeder_that_lags_behind_says_nothing_before_it_has_caught_up() -> None:
    rig = up()
    first = rig.follower.feeder
    other = B if first == A else A
    rig.lag.add(other)
    (grant,) = rig.submit(FOUR)
    rig.settle()
    end(rig, 0)
    rig.settle()
    cursor, left = rig.follower.cursor, owned(rig)
    assert first is not None
    rig.step(Lost(rig.now_ms, first))
    rig.settle()
    assert rig.follower.feeder == other
    assert not is_fed(rig)
    rig.lag.clear()
    rig.catch_up(rig.holders[other])
    rig.settle()
    assert is_fed(rig)
    assert rig.follower.cursor >= cursor
    assert owned(rig) == left, f"grant {grant} is as it was"


def test_a_feeder_that_has_forgotten_a_follower_does_not_go_on_with_it() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    feeder = rig.follower.feeder
    assert feeder is not None
    rig.holders[feeder] = Holder(feeder)  # it has started again
    rig.holders[feeder].clock(rig.now_ms)
    rig.catch_up(rig.holders[feeder])
    rig.run(500)
    assert rig.follower.feeder != feeder
    assert is_fed(rig)


def test_a_lost_feed_is_noticed_and_all_is_told_anew() -> None:
    rig = up()
    feeder = rig.follower.feeder
    assert feeder is not None
    rig.submit(TaskSet.of(0, 2))
    rig.holders[feeder].feeding.on_round()  # and nobody carries it
    rig.commit(Place(JOB, TaskSet.of(2, 4), F, 1))
    rig.run(500)
    assert owned(rig) == FOUR


def test_a_result_whose_outcome_was_missed_is_proposed_again_and_counts_once() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    feeder = rig.follower.feeder
    assert feeder is not None
    end(rig, 0)
    proposed, rig.proposed = rig.proposed, []
    rig.cut.add(feeder)
    rig.commit_all(proposed)  # it got through, and nobody can say so
    rig.run(FEED_PATIENCE_MS + 200)
    assert rig.follower.feeder != feeder
    machine = rig.holders[L].machine
    assert len(machine.jobs[JOB].succeeded) == len(rig.started[0].tasks)
    outcomes = [o for feed in rig.told for _, o in feed.outcomes if isinstance(o, Completed)]
    assert [bool(o.duplicate) for o in outcomes] == [True]
    assert machine.results_refused == 0


def test_declared_down_it_takes_a_new_incarnation_and_keeps_its_grants() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    rig.commit(PeerDown(F, 1, "silent"))
    rig.settle()
    rig.step(Renewed(rig.now_ms, 2))
    rig.settle()
    assert rig.follower.info.incarnation == 2
    assert rig.holders[L].machine.is_live(F, 2)
    assert owned(rig) == FOUR
    assert not rig.stopped
    assert len(rig.started) == 2


def test_it_gives_its_tasks_back_when_it_leaves() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    rig.step(Leaving(rig.now_ms, 7))
    rig.settle()
    row = rig.holders[L].machine.peers[F]
    assert (row.live, row.stopped) == (False, True)


def test_who_leads_sends_its_followers_elsewhere() -> None:
    rig = up()
    feeder = rig.follower.feeder
    assert feeder is not None
    holder = rig.holders[feeder]
    holder.feeding.on_coordinator(feeder)
    rig.follower.leader = feeder
    holder.clock(rig.now_ms)
    (say,) = [s for s in holder.feeding.on_round() if isinstance(s.message, FeedElsewhere)]
    assert say.to == F
    assert holder.feeding.feeder.followers == 0


# --- who is there ---


def test_the_leader_hears_of_a_follower_through_its_feeder() -> None:
    rig = up()
    rig.run(1_000)
    leader = rig.holders[L].feeding
    assert leader.contacts(rig.now_ms, GROUP)[F] >= rig.now_ms - REPORT_MS - 100
    assert leader.roll.through == {F: rig.follower.feeder}


def test_a_silent_follower_ages() -> None:
    rig = up()
    rig.run(1_000)
    heard_ms = rig.now_ms
    feeder = rig.follower.feeder
    assert feeder is not None
    for _ in range(40):
        rig.now_ms += 100
        for holder in rig.holders.values():
            holder.clock(rig.now_ms)
        for name, holder in rig.holders.items():
            for say in holder.feeding.on_round():
                if isinstance(say.message, FeedReport | FeedReported):
                    rig._tell(name, say)
    contact = rig.holders[L].feeding.contacts(rig.now_ms, GROUP)[F]
    assert heard_ms - HEARD_MS <= contact <= heard_ms + HEARD_MS


def test_who_has_just_come_up_counts_as_heard() -> None:
    rig = Rig()
    rig.commit(PeerUp(info(F)))
    contacts = rig.holders[L].feeding.contacts(rig.now_ms, GROUP)
    assert contacts == {F: rig.now_ms}
    assert rig.holders[L].feeding.contacts(rig.now_ms + 900, GROUP) == contacts


def test_a_report_says_what_has_changed() -> None:
    reporter, roll = Reporter(), Roll()
    crowd = {PeerId(f"f{n:04}") for n in range(1_000)}
    now_ms, sizes = 0, []
    for heard in (crowd, crowd, crowd - {PeerId("f0007")}, crowd | {PeerId("new")}, crowd):
        report = reporter.on_clock(now_ms, L, heard)
        assert report is not None
        sizes.append(len(report.came) + len(report.gone))
        answer = roll.on_report(now_ms, A, report)
        if answer is not None:
            reporter.on_reported(L, answer)
        now_ms += REPORT_MS
    assert sizes == [1_000, 0, 1, 2, 1]
    assert roll.through == dict.fromkeys(sorted(crowd), A)


def test_a_leader_that_missed_a_report_asks_for_all() -> None:
    reporter, roll = Reporter(), Roll()
    one, two = {PeerId("f")}, {PeerId("f"), PeerId("g")}
    first = reporter.on_clock(0, L, one)
    assert first is not None
    reporter.on_reported(L, FeedReported(first.number))  # by a leader that has forgotten it since
    second = reporter.on_clock(REPORT_MS, L, two)
    assert second is not None
    answer = roll.on_report(REPORT_MS, A, second)
    assert answer == FeedReported(0)
    reporter.on_reported(L, answer)
    third = reporter.on_clock(2 * REPORT_MS, L, two)
    assert third is not None
    assert roll.on_report(2 * REPORT_MS, A, third) == FeedReported(third.number)
    assert roll.through.keys() == two


def test_the_holders_of_the_ledger_are_all_members() -> None:
    assert [member.peer for member in members_of(GROUP)] == [A, B, L]


def test_a_drained_follower_gives_back_what_it_has_not_begun_and_starts_nothing_more() -> None:
    rig = up()
    rig.submit(FOUR)
    rig.settle()
    begun = TaskSet.union([batch.tasks for batch in rig.started])
    rig.commit(Drain(F, DrainMode.ON))
    rig.settle()
    assert rig.follower.machine.peers[F].drain is DrainMode.ON
    assert owned(rig) == begun
    assert rig.holders[A].machine.jobs[JOB].waiting == FOUR - begun
    end(rig, 0)
    rig.settle()
    assert len(rig.started) == 2
    rig.commit(Drain(F, DrainMode.OFF))
    rig.settle()
    rig.commit(Place(JOB, FOUR - begun, F, 1))
    rig.settle()
    assert len(rig.started) > 2


def test_a_follower_is_told_that_it_was_removed() -> None:
    rig = up()
    for holder in rig.holders.values():
        holder.group = msgspec.structs.replace(GROUP, removed=(F,))
    rig.run(500)
    assert rig.follower.is_removed


def test_a_follower_hears_when_too_few_holders_are_up_and_when_there_are_enough() -> None:
    rig = up()
    for holder in rig.holders.values():
        holder.group = msgspec.structs.replace(GROUP, wanted=1)  # and two spares
    rig.run(500)
    assert not is_short(rig)
    away = next(peer for peer in (A, B) if peer != rig.follower.feeder)
    rig.commit(PeerDown(away, 1, "not heard"))
    rig.run(500)
    assert is_short(rig)
    assert not rig.follower.is_wanted  # as many as are wanted are members
    rig.commit(PeerUp(info(away, 2, slots=0)))
    rig.run(500)
    assert not is_short(rig)
