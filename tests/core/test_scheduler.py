"""One peer above the ledger: what it proposes, repeats, answers, keeps and gives back."""

from __future__ import annotations

from typing import Final

import pytest
from msgspec.structs import replace

from p2psched.core import proposals
from p2psched.core.levels import AFTER_LEVEL
from p2psched.core.owner import StartBatch
from p2psched.core.proposals import REPEAT_MS
from p2psched.core.scheduler import (
    Answered,
    AppendToLedger,
    Applied,
    Asked,
    Began,
    Clocked,
    CoordinatorChanged,
    Executed,
    GaveUp,
    Leaving,
    Renewed,
    RenewIncarnation,
    Round,
    Scheduler,
    SchedulerEffect,
    SchedulerEvent,
)
from p2psched.model.after import After
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Envelope,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    Rejected,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Batch, Committed, Ended, Progress
from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import JOB, P, Q, ended, spec, up

FOUR: Final = TaskSet.of(0, 4)
SUBMIT: Final = SubmitJob(JOB, spec(FOUR))


class Peer:
    """A scheduler whose ledger commits when it is told to."""

    def __init__(self, incarnation: int = 1) -> None:
        self.scheduler = Scheduler(PeerInfo(P, incarnation, "p", "", 0, 2, "", ""))
        self.now_ms = 1_000
        self.proposed: list[Envelope] = []  # and not committed
        self.done: list[SchedulerEffect] = []

    def do(self, event: SchedulerEvent) -> None:
        self.done += self.scheduler.step(event)

    def round(self) -> list[Command]:
        """End of a turn; what is proposed in it."""
        self.do(Round(self.now_ms))
        appends = [effect for effect in self.done if isinstance(effect, AppendToLedger)]
        new = [envelope for append in appends for envelope in append.envelopes]
        self.done = [effect for effect in self.done if not isinstance(effect, AppendToLedger)]
        self.proposed += new
        return [envelope.command for envelope in new]

    def commit(self, *envelopes: Envelope) -> None:
        """Commit these, or what was proposed so far, as one entry."""
        if not envelopes:
            envelopes, self.proposed = tuple(self.proposed), []
        index = self.scheduler.machine.applied_index + 1
        self.do(Applied(self.now_ms, (Committed(index, self.now_ms, 0, envelopes),)))

    def commit_from_elsewhere(self, *commands: Command) -> None:
        first = 1_000 * (1 + self.scheduler.machine.applied_index)
        self.commit(*(Envelope(Q, first + i, command) for i, command in enumerate(commands)))

    def of(self, kind: type[SchedulerEffect]) -> list[SchedulerEffect]:
        return [effect for effect in self.done if isinstance(effect, kind)]

    def coordinate(self) -> None:
        self.do(CoordinatorChanged(self.now_ms, P, is_self=True))

    def wait(self, duration_ms: int) -> list[Command]:
        """Time passes; what is proposed because of it."""
        self.now_ms += duration_ms
        self.do(Clocked(self.now_ms, {}))
        return self.round()

    def answers(self) -> list[SchedulerEffect]:
        return self.of(Answered)

    def batches(self) -> list[Batch]:
        return [effect.batch for effect in self.done if isinstance(effect, StartBatch)]

    def grant(self, tasks: TaskSet, incarnation: int = 1) -> int:
        """Make it the owner of tasks; the grant."""
        self.commit_from_elsewhere(Place(JOB, tasks, P, incarnation))
        self.round()
        return self.scheduler.machine.command_index


@pytest.fixture
def peer() -> Peer:
    """A peer that the ledger knows; somebody else coordinates."""
    made = Peer()
    made.do(Began(made.now_ms))
    made.round()
    made.commit()
    made.do(CoordinatorChanged(made.now_ms, Q, is_self=False))
    made.round()
    made.done.clear()
    return made


# --- proposals ------------------------------------------------------------------------------------


def test_a_peer_that_begins_tells_the_ledger() -> None:
    peer = Peer(incarnation=3)
    peer.do(Began(0))
    (command,) = peer.round()
    assert isinstance(command, PeerUp)
    assert (command.info.incarnation, command.kept) == (3, ())


def test_a_caller_is_answered_when_its_command_is_committed_and_not_before(peer: Peer) -> None:
    peer.do(Asked(peer.now_ms, 7, SUBMIT))
    assert peer.round() == [SUBMIT]
    assert peer.answers() == []
    peer.commit()
    assert peer.answers() == [Answered(7, Submitted(JOB, duplicate=False))]


def test_first_placements_ride_in_the_entry_of_their_job(peer: Peer) -> None:
    peer.coordinate()
    submit = Envelope(Q, 5, SUBMIT)
    first, *placements = peer.scheduler.decorate((submit,))
    assert first == submit
    assert [type(e.command) for e in placements] == [Place]
    assert placements[0].proposer == P
    peer.commit(first, *placements)
    assert not [c for c in peer.round() if isinstance(c, Place)]
    assert peer.batches()


def test_who_does_not_coordinate_adds_nothing_to_an_entry(peer: Peer) -> None:
    submit = Envelope(Q, 5, SUBMIT)
    assert peer.scheduler.decorate((submit,)) == (submit,)


def test_a_lost_proposal_is_proposed_again_under_the_same_number(peer: Peer) -> None:
    peer.do(Asked(peer.now_ms, 7, SUBMIT))
    peer.round()
    assert peer.wait(REPEAT_MS - 1) == []
    assert peer.wait(1) == [SUBMIT]
    assert len({envelope.request for envelope in peer.proposed}) == 1


def test_a_new_coordinator_is_told_at_once_of_what_is_open(peer: Peer) -> None:
    peer.do(Asked(peer.now_ms, 7, SUBMIT))
    peer.round()
    peer.do(CoordinatorChanged(peer.now_ms + 1, PeerId("r"), is_self=False))
    assert peer.round() == [SUBMIT]


def test_nobody_is_told_while_there_is_no_coordinator(peer: Peer) -> None:
    peer.do(Asked(peer.now_ms, 7, SUBMIT))
    peer.round()
    peer.do(CoordinatorChanged(peer.now_ms + 1, None, is_self=False))
    assert peer.round() == []


def test_a_proposal_that_is_committed_twice_is_answered_once(peer: Peer) -> None:
    peer.do(Asked(peer.now_ms, 7, SUBMIT))
    peer.round()
    peer.wait(REPEAT_MS)
    first, second = peer.proposed
    peer.commit(first)
    peer.commit(second)
    assert peer.answers() == [Answered(7, Submitted(JOB, duplicate=False))]
    assert peer.scheduler.pending_count == 0
    assert peer.wait(REPEAT_MS) == []


def test_who_gave_up_is_not_answered_and_its_command_not_repeated(peer: Peer) -> None:
    peer.do(Asked(peer.now_ms, 7, SUBMIT))
    peer.do(Asked(peer.now_ms, 8, Cancel(JOB)))
    peer.round()
    peer.do(GaveUp(peer.now_ms, 7))
    assert peer.wait(REPEAT_MS) == [Cancel(JOB)]
    peer.commit()
    assert peer.answers() == [Answered(8, Acknowledged())]
    assert JOB in peer.scheduler.machine.jobs


def test_a_full_peer_answers_busy_and_proposes_nothing(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "PENDING_PROPOSALS_MAX", 2)
    for tag in (1, 2, 3):
        peer.do(Asked(peer.now_ms, tag, SubmitJob(JobId(f"job-{tag}"), spec())))
    assert len(peer.round()) == 2
    (answer,) = peer.answers()
    assert isinstance(answer, Answered)
    assert isinstance(answer.outcome, Rejected)
    assert (answer.tag, answer.outcome.code) == (3, "unavailable")
    peer.commit()
    peer.do(Asked(peer.now_ms, 4, SUBMIT))
    assert SUBMIT in peer.round()


# --- incarnations ---------------------------------------------------------------------------------


def test_a_peer_that_was_declared_down_asks_for_a_new_incarnation(peer: Peer) -> None:
    peer.commit_from_elsewhere(PeerDown(Q, 1, ""), PeerDown(P, 9, ""))
    assert peer.of(RenewIncarnation) == []
    peer.commit_from_elsewhere(PeerDown(P, 1, "not heard"))
    assert peer.of(RenewIncarnation) == [RenewIncarnation()]


def test_a_peer_whose_folder_is_an_older_copy_asks_for_a_new_incarnation() -> None:
    peer = Peer(incarnation=3)
    peer.do(Began(peer.now_ms))
    peer.round()
    peer.commit_from_elsewhere(PeerUp(PeerInfo(P, 9, "p", "", 0, 2, "", "")))
    peer.commit()  # the ledger knows a later life: ours is rejected
    assert peer.of(RenewIncarnation) == [RenewIncarnation()]


def test_a_renewed_peer_keeps_the_grants_that_are_still_its_own(peer: Peer) -> None:
    peer.commit_from_elsewhere(SUBMIT)
    grant = peer.grant(FOUR)
    (first, second) = peer.batches()
    peer.commit_from_elsewhere(PeerDown(P, 1, "not heard"))
    peer.do(Renewed(peer.now_ms, 2))
    (up,) = peer.round()
    assert isinstance(up, PeerUp)
    assert up.info.incarnation == 2
    assert [(kept.grant, kept.tasks) for kept in up.kept] == [(grant, FOUR)]
    peer.commit()
    held = peer.scheduler.machine.jobs[JOB].grants[grant]
    assert (held.peer, held.incarnation, held.tasks) == (P, 2, FOUR)
    assert peer.batches() == [first, second]  # they run on, nothing starts again


def test_tasks_that_were_given_away_meanwhile_are_not_kept(peer: Peer) -> None:
    peer.commit_from_elsewhere(SUBMIT, PeerUp(PeerInfo(Q, 1, "q", "", 0, 2, "", "")))
    peer.grant(FOUR)
    peer.commit_from_elsewhere(PeerDown(P, 1, ""), Place(JOB, TaskSet.of(0, 3), Q, 1))
    peer.do(Renewed(peer.now_ms, 2))
    (up,) = peer.round()
    assert isinstance(up, PeerUp)
    assert [kept.tasks for kept in up.kept] == [TaskSet.of(3, 4)]


# --- results --------------------------------------------------------------------------------------


def test_results_are_proposed_until_they_are_committed_and_count_once(peer: Peer) -> None:
    peer.commit_from_elsewhere(SUBMIT)
    peer.grant(FOUR)
    batch = peer.batches()[0]
    peer.do(Executed(peer.now_ms, Progress(batch.id, (ended(0, 1),))))
    peer.do(Executed(peer.now_ms, Ended(batch.id, EMPTY)))
    (complete,) = peer.round()
    assert isinstance(complete, Complete)
    assert peer.wait(REPEAT_MS) == [complete]
    first, second = peer.proposed
    peer.commit(first)
    peer.commit(second)
    job = peer.scheduler.machine.jobs[JOB]
    assert (job.succeeded, job.segments, job.results_refused) == (TaskSet.of(0, 1), 1, 0)


# --- what comes after others ----------------------------------------------------------------------


def test_the_end_of_the_one_before_places_the_next_in_the_same_turn(peer: Peer) -> None:
    """No message, no timer and nobody who asks: the apply of that end is all it takes (S24)."""
    parent, child = JobId("a" * 32), JobId("c" * 32)
    after = replace(spec(FOUR), after=After((parent,)))
    peer.scheduler.machine.level = AFTER_LEVEL
    peer.commit_from_elsewhere(up(Q))
    peer.commit_from_elsewhere(SubmitJob(parent, spec(FOUR)), SubmitJob(child, after))
    peer.commit_from_elsewhere(Place(parent, FOUR, Q, 1))
    grant = peer.scheduler.machine.command_index
    peer.coordinate()
    assert not [c for c in (*peer.round(), *peer.wait(2_000)) if isinstance(c, Place)]
    peer.commit_from_elsewhere(Complete(parent, grant, (ended(0, 3),)))
    assert not [c for c in peer.round() if isinstance(c, Place)]
    peer.commit_from_elsewhere(Complete(parent, grant, (ended(3, 4),)))
    assert {c.job for c in peer.round() if isinstance(c, Place)} == {child}


# --- leaving --------------------------------------------------------------------------------------


def test_a_peer_that_leaves_says_so_and_is_answered_when_it_is_committed(peer: Peer) -> None:
    peer.do(Leaving(peer.now_ms, 9))
    assert peer.round() == [PeerDown(P, 1, "stopped", stopped=True)]
    assert peer.answers() == []
    peer.commit()
    assert peer.answers() == [Answered(9, Acknowledged())]
    assert peer.of(RenewIncarnation) == []
    assert not peer.scheduler.machine.peers[P].live


def test_a_peer_that_leaves_starts_nothing_and_still_brings_its_results(peer: Peer) -> None:
    peer.commit_from_elsewhere(SUBMIT)
    peer.grant(FOUR)
    batch, other = peer.batches()
    peer.do(Leaving(peer.now_ms, 9))
    peer.do(Executed(peer.now_ms, Progress(batch.id, (ended(0, 1),))))
    peer.do(Executed(peer.now_ms, Ended(batch.id, EMPTY)))
    assert {type(command) for command in peer.round()} == {Complete, PeerDown}
    peer.commit()
    assert peer.scheduler.machine.jobs[JOB].succeeded == TaskSet.of(0, 1)
    assert peer.batches() == [batch, other]


def test_a_peer_that_leaves_before_the_ledger_knows_it_waits_until_it_does() -> None:
    peer = Peer()
    peer.do(Began(peer.now_ms))
    peer.do(Leaving(peer.now_ms, 9))
    assert [type(command) for command in peer.round()] == [PeerUp]
    peer.commit()
    assert peer.round() == [PeerDown(P, 1, "stopped", stopped=True)]
    peer.commit()
    assert peer.answers() == [Answered(9, Acknowledged())]
    assert not peer.scheduler.machine.peers[P].live


def test_a_farewell_that_nobody_waits_for_is_not_said() -> None:
    peer = Peer()
    peer.do(Began(peer.now_ms))
    peer.do(Leaving(peer.now_ms, 9))
    peer.round()
    peer.do(GaveUp(peer.now_ms, 9))
    peer.commit()
    assert peer.round() == []


def test_a_peer_that_leaves_takes_no_new_incarnation(peer: Peer) -> None:
    peer.do(Leaving(peer.now_ms, 9))
    peer.do(Renewed(peer.now_ms, 2))
    assert peer.round() == [PeerDown(P, 1, "stopped", stopped=True)]
