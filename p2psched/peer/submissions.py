"""Submits, answered without a task for any of them.

A submit is a row here until the outcome of its proposal is known. If its caller follows the job,
the row stays until the first results are stored or FOLLOW_S is over, and one answer says both: for
most short jobs that is the only one. Whatever is not in memory, and whatever else is special, the
caller fetches as ever: it is told that the job was accepted.

What a job refers to must be secure before it is taken: see `api`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from p2psched.core.machine import Machine
from p2psched.model.blob import BlobRef
from p2psched.model.commands import Outcome, Rejected, SubmitJob, Submitted
from p2psched.model.errors import NoSpace, P2PSchedError, Unavailable, UsageError, from_wire
from p2psched.model.ids import is_id
from p2psched.model.job import argument_size, blobs_of
from p2psched.model.limits import KIB
from p2psched.model.messages import CallBody, FirstResults, JobAccepted, Submit
from p2psched.net.patience import Patience
from p2psched.peer.lines import Place, busy
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.roster import NO_QUORUM, PATIENCE_S
from p2psched.peer.scheduler_loop import SchedulerLoop

# A caller that follows waits so long to hear that its job was accepted, if the job takes longer.
FOLLOW_S: Final = 0.25
RESULTS_BYTES_MAX: Final = 64 * KIB  # of one answer; more is fetched

SubmitAnswer = JobAccepted | FirstResults
Reply = Callable[[SubmitAnswer | P2PSchedError], None]  # must not raise, nor propose


class Submissions:
    """`refusal` says why a call can't be taken just now, `are_secure` if blobs are durable enough
    without waiting for anybody."""

    def __init__(
        self,
        scheduling: SchedulerLoop,
        results: ResultWriter,
        *,
        refusal: Callable[[CallBody], NoSpace | None],
        are_secure: Callable[[Sequence[BlobRef]], bool],
    ) -> None:
        self.scheduling = scheduling
        self._machine: Machine = scheduling.scheduler.machine
        self._results = results
        self._refusal = refusal
        self._are_secure = are_secure
        self.committing = Patience(PATIENCE_S)
        self.following = Patience(FOLLOW_S)

    def takes(self, body: Submit) -> bool:
        """True if nothing has to be waited for before it is begun."""
        refs = blobs_of(body.spec.work)
        return not refs or self._are_secure(refs)

    def make(self, body: Submit, reply: Reply) -> Submission:
        """To be begun. `reply` is called once then, at once or later, unless it is cancelled."""
        return Submission(self, body, reply)

    def refusal(self, body: Submit, size: int) -> P2PSchedError | None:
        if not is_id(body.job):
            return UsageError("a job's id has 32 hex digits")
        policies = self.scheduling.scheduler.policies
        if body.spec.policy and body.spec.policy not in policies:
            return UsageError(
                f"no policy {body.spec.policy!r} here: {', '.join(policies)}; one of your own is "
                "for each peer to know (`p2psched start --policy-file`)"
            )
        refusal = self._refusal(body)
        if refusal is not None or body.job in self._machine.jobs:
            return refusal  # a repeat is answered whatever waits
        machine, door = self._machine, self.scheduling.scheduler.door
        return busy(door.job_refusal(len(machine.running), machine.running_bytes, size))

    def first_results(self, accepted: JobAccepted) -> SubmitAnswer | None:
        """What to tell who follows; None: not yet."""
        job = self._machine.jobs.get(accepted.job)
        if job is None or not self._results.is_whole(job.id):
            return accepted
        page = self._results.newest(job.id, 0, RESULTS_BYTES_MAX)
        if not page.segments and not job.ended:
            return None
        ended = job.ended and page.next_position >= job.segments
        return FirstResults(tuple(page.segments), page.next_position, ended)


def _nobody(_answer: SubmitAnswer | P2PSchedError) -> None:
    """What is over keeps nobody who knows it: that would be a cycle for each call."""


class Submission:
    """One row. Belongs to the loop of its peer."""

    __slots__ = ("_accepted", "_body", "_follows", "_house", "_is_over", "_place", "_reply", "_tag")

    def __init__(self, house: Submissions, body: Submit, reply: Reply) -> None:
        self._house = house
        self._body: Submit | None = body  # until it is proposed: it may be large
        self._follows = body.follow
        self._reply = reply
        self._tag: int | None = None  # while its outcome is not known
        self._accepted: JobAccepted | None = None  # while its results are waited for
        self._is_over = False
        self._place: Place | None = None  # in the line, until its outcome is known

    def begin(self) -> None:
        house, body = self._house, self._body
        assert body is not None, "a submission begins once"
        self._body = None
        size = argument_size(body.spec.work)
        refusal = house.refusal(body, size)
        if refusal is not None:
            self._end(refusal)
            return
        self._place = house.scheduling.line.take(size)
        house.committing.begin(self)
        tag = house.scheduling.propose_nowait(SubmitJob(body.job, body.spec), self._on_outcome)
        if not self._is_over and self._accepted is None:
            self._tag = tag

    def cancel(self) -> None:
        """Nobody wants the answer any more; the job may go on all the same."""
        self._release()

    def expire(self) -> None:
        if self._accepted is not None:
            self._end(self._accepted)
        else:
            self._end(Unavailable(NO_QUORUM))

    def _on_outcome(self, outcome: Outcome | Unavailable) -> None:
        self._tag = None
        self._house.committing.end(self)
        if self._place is not None and not isinstance(outcome, Unavailable):
            self._place.served()
        if isinstance(outcome, Unavailable):
            self._end(outcome)
        elif isinstance(outcome, Rejected):
            self._end(from_wire(outcome.code, outcome.message, 1000))
        else:
            assert isinstance(outcome, Submitted)
            accepted = JobAccepted(outcome.job, outcome.duplicate)
            if outcome.duplicate or not self._follows:  # whatever it had to tell may be past
                self._end(accepted)
                return
            self._accepted = accepted
            self._house.following.begin(self)
            self._house.scheduling.watch(accepted.job, self._on_change)

    def _on_change(self) -> None:
        assert self._accepted is not None
        answer = self._house.first_results(self._accepted)
        if answer is not None:
            self._end(answer)

    def _end(self, answer: SubmitAnswer | P2PSchedError) -> None:
        reply = self._reply
        self._release()
        reply(answer)

    def _release(self) -> None:
        self._is_over = True
        self._reply = _nobody
        tag, accepted = self._tag, self._accepted
        self._tag = self._accepted = None
        self._house.committing.end(self)
        if self._place is not None:
            self._place.leave()
        if tag is not None:
            self._house.scheduling.give_up(tag)
        if accepted is not None:
            self._house.following.end(self)
            self._house.scheduling.unwatch(accepted.job, self._on_change)
