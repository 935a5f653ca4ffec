"""The state machine: the pure fold of the ledger.

`apply(batch)` gives the outcome of each command and the events that follow. Equal batches give
equal states, outcomes and events on every peer: no clock, no randomness, no order of hashes.
Refuses nothing that was committed: an impossible command has an outcome that says so.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import msgspec

from p2psched.core import (
    accepting,
    acts,
    backing,
    dependencies,
    drain,
    generation,
    holding,
    hooks,
    keeping,
    levels,
    moving,
    once,
    peering,
    placing,
    resumptions,
    retrying,
)
from p2psched.core.dump import dump
from p2psched.core.jobs import SPACELESS_MAX, Job
from p2psched.core.state import LedgerState
from p2psched.model.actions import Act, Elapsed
from p2psched.model.backing import BackUp
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Complete,
    Completed,
    Drain,
    Envelope,
    Event,
    Forget,
    ForgetPeer,
    GiveBack,
    Grant,
    Held,
    JobAdded,
    NewGeneration,
    Outcome,
    PeerDown,
    PeerUp,
    Pin,
    Place,
    Placed,
    RaiseLevel,
    Recorded,
    Rejected,
    ResultRefused,
    Retried,
    Retry,
    Stamped,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.key_actions import KeyChanged
from p2psched.model.moves import Transfer
from p2psched.model.needs import Offer
from p2psched.model.once import Once, Start
from p2psched.model.pace_commands import Said
from p2psched.model.reconciled import Reconciled
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.model.webhook import AckWebhook, AddWebhook, RemoveWebhook

# The same function on the same arguments would only fail the same way.
NEVER_RETRIED: Final = frozenset({Cause.NOT_SERIALISABLE, Cause.TOO_LARGE})
# Commands that would act twice, whose repeats are known as such; beyond it the oldest is
# forgotten. A proposer repeats after a second, and stops as soon as it has seen its proposal.
REPEATS_KNOWN_MAX: Final = 8_192
_WITH_DATA: Final = frozenset({JobAdded, Recorded, Retried, KeyChanged})
_OK: Final = Cause.OK  # looking it up in its class takes ten times as long (Python 3.11)

_encode = msgspec.msgpack.Encoder().encode

Decision = (
    Cancel
    | Forget
    | Pin
    | Retry
    | Held
    | RaiseLevel
    | Drain
    | GiveBack
    | Said
    | AddWebhook
    | RemoveWebhook
    | AckWebhook
    | Reconciled
    | Once
)


class Machine(LedgerState):
    """Jobs and peers at one ledger index. Mutable, owned by one replica; others only look."""

    def __init__(self, known_level: int = levels.KNOWN_LEVEL) -> None:
        super().__init__()
        self.known_level = known_level  # of this process, no part of the ledger
        self._hash = bytes(8)
        # Proposals, oldest first, and why they were refused. Who takes a snapshot may have missed
        # the first outcome, and learns it from a repeat.
        self._taken: OrderedDict[tuple[PeerId, int], Rejected | None] = OrderedDict()

    @property
    def state_hash(self) -> str:
        """Chained over all outcomes and events; equal at equal index on every peer."""
        return self._hash.hex()

    def apply(self, batch: Committed) -> tuple[list[Outcome], list[Stamped]]:
        """Apply one entry. Outcomes in the order of its envelopes."""
        assert batch.index == self.applied_index + 1, "entries are applied in order, without gaps"
        self.applied_index = batch.index
        self.stamp_ms = max(self.stamp_ms, batch.stamp_ms)
        self.wall_ms = batch.wall_ms
        outcomes: list[Outcome] = []
        stamped: list[Stamped] = []
        said: list[object] = [self._hash]  # hashed in one piece: one call an entry
        events, stamp_ms, wall_ms = self.events, self.stamp_ms, self.wall_ms
        for envelope in batch.envelopes:
            index = self.command_index = self.command_index + 1
            outcome = self._apply(envelope)
            if self.lineage.parted:
                dependencies.settle(self)
            if self.turning:
                holding.settle(self)
            outcomes.append(outcome)
            said.append(outcome)
            for event in events:
                is_bare = type(event) not in _WITH_DATA
                said.append(event if is_bare else _without_data(event))
                stamped.append(Stamped(index, stamp_ms, wall_ms, event))
            events.clear()
        self._hash = hashlib.blake2b(_encode(said), digest_size=8).digest()
        return outcomes, stamped

    def _apply(self, envelope: Envelope) -> Outcome:
        command = envelope.command
        match command:
            case SubmitJob():
                return self._submit_once(envelope, command)
            case Place() | Transfer() | BackUp():
                return self._grant(envelope, command)
            case Complete():
                return self._complete(command)
            case Act() | Elapsed():
                return levels.refusal(self, command) or acts.decide(self, command)
            case PeerUp() | PeerDown() | ForgetPeer() | Offer():
                return peering.decide(self, command)
            case NewGeneration():
                return generation.begin(self, command)
            case _:
                key = (envelope.proposer, envelope.request)
                if self._is_repeat(envelope):
                    return self._taken[key] or Acknowledged()
                outcome = levels.refusal(self, command) or self._decide(command)
                if isinstance(outcome, Rejected):
                    self._taken[key] = outcome
                return outcome

    def _grant(self, envelope: Envelope, command: Place | Transfer | BackUp) -> Outcome:
        if self._is_repeat(envelope):
            return Placed(self.command_index, EMPTY)
        if isinstance(command, Place):
            return placing.place(self, command)
        if isinstance(command, BackUp):
            return backing.back_up(self, command)
        refusal = levels.refusal(self, command)
        return refusal or moving.transfer(self, envelope.proposer, command)

    def _decide(self, command: Decision) -> Outcome:
        match command:
            case Cancel() | Forget() | Pin() | Retry() | Held():
                return keeping.decide(self, command)
            case Drain() | Reconciled():
                return drain.decide(self, command)
            case AddWebhook() | RemoveWebhook() | AckWebhook():
                return hooks.decide(self, command)
            case RaiseLevel():
                return levels.raise_level(self, command, known_level=self.known_level)
            case Once():
                return once.decide(self, command)
            case _:
                return resumptions.decide(self, command)

    def _is_repeat(self, envelope: Envelope) -> bool:
        """True if this proposal was applied before. A job that was unknown to a cancel may be there
        when the cancel is committed again, a task that was placed or run again may wait again, one
        that could not move may have begun, a holder may have lost what it held: without this one
        command would act twice. The others are safe to repeat by what they say."""
        key = (envelope.proposer, envelope.request)
        if key in self._taken:
            return True
        self._taken[key] = None
        if len(self._taken) > REPEATS_KNOWN_MAX:
            self._taken.popitem(last=False)
        return False

    # --- jobs ---

    def _submit_once(self, envelope: Envelope, command: SubmitJob) -> Outcome:
        """What no peer could run stays refused when it is committed again after one has come, and
        so does what came after a job that was not there yet."""
        spec = command.spec
        if spec.needs is None and not spec.policy and spec.after is None:
            return accepting.submit(self, command)
        key = (envelope.proposer, envelope.request)
        if self._is_repeat(envelope) and (refused := self._taken[key]) is not None:
            return refused
        outcome = accepting.submit(self, command)
        if isinstance(outcome, Rejected):
            self._taken[key] = outcome
        return outcome

    def _complete(self, command: Complete) -> Outcome:
        job = self.jobs.get(command.job)
        if job is None:
            return Completed(stale=TaskSet.union([segment.tasks for segment in command.segments]))
        try:
            for segment in command.segments:
                segment.check()
        except ValueError as exc:
            return Rejected("protocol", f"results of job {job.id} are damaged: {exc}")
        usual = self._complete_grant(job, command)
        if usual is not None:
            return usual
        once.readmit_brought(self, job, command)
        duplicate = stale = EMPTY
        segments, accepted = backing.settle_ends(self, job, command)
        ends: list[tuple[Cause, TaskSet]] = []
        for segment in segments:
            tasks = segment.tasks
            current = job.current_part(command.grant, tasks)
            if current == tasks:
                ends.append(self._end_attempts(job, command.grant, segment, tasks))
            else:
                said = job.committed.get(command.grant, EMPTY) | accepted
                again = (tasks - current) & said
                parts = segment.parts(current)
                ends += [self._end_attempts(job, command.grant, p, p.tasks) for p in parts]
                duplicate, stale = duplicate | again, stale | (tasks - current - again)
            accepted = accepted | current
        self._settle(job, command.grant, accepted, ends)
        if stale.ranges:
            job.results_refused += len(stale)
            self.results_refused += len(stale)
            self.events.append(ResultRefused(job.id, command.grant, stale))
        if job.stopped:
            retrying.settle(self, job)
        self.note_unplaced(job)
        self.end_if_done(job)
        return Completed(accepted, duplicate, stale)

    def _complete_grant(self, job: Job, command: Complete) -> Completed | None:
        """What most small jobs end with: one good segment brings all that a grant holds. Does what
        `_complete` does with it, in half the time; None if it is another case."""
        held = job.grants.get(command.grant)
        if held is None or len(command.segments) != 1 or job.orphaned.ranges or held.token:
            return None
        if job.backups:
            return None
        (segment,) = command.segments
        if segment.cause is not _OK or segment.blobs:
            return None
        tasks = held.tasks
        if tasks.ranges != ((segment.start, segment.stop),):
            return None
        count = segment.stop - segment.start
        del job.grants[command.grant]
        self.load(job, held, -count)
        self._learn(job, segment, count)
        self.record(job, held, segment)
        before, succeeded = job.committed.get(command.grant), job.succeeded
        job.committed[command.grant] = tasks if before is None else before | tasks
        job.succeeded = succeeded | tasks if succeeded.ranges else tasks
        self.end_if_done(job)
        return Completed(tasks)

    def _learn(self, job: Job, segment: Segment, count: int) -> None:
        job.learn_duration(segment, count)
        self.estimate_us = (3 * self.estimate_us + job.estimate_us) // 4

    def _settle(
        self, job: Job, grant: Grant, accepted: TaskSet, ends: list[tuple[Cause, TaskSet]]
    ) -> None:
        """Once for all segments: the sets of the job may have very many ranges."""
        if not accepted.ranges:
            return
        job.committed[grant] = job.committed.get(grant, EMPTY) | accepted
        good: list[TaskSet] = []
        bad: list[TaskSet] = []
        for cause, tasks in ends:
            (good if cause is _OK else bad).append(tasks)
        if good:
            job.succeeded = job.succeeded | TaskSet.union(good)
        if bad:
            job.failed = job.failed | TaskSet.union(bad)

    def _end_attempts(
        self, job: Job, grant: Grant, segment: Segment, tasks: TaskSet
    ) -> tuple[Cause, TaskSet]:
        """The tasks that this was the last attempt of: `_settle` them. `tasks`: the segment's."""
        held = job.grants.get(grant)
        assert held is not None
        self.release(job, held, tasks)
        if segment.cause is _OK:
            self._learn(job, segment, len(tasks))
            self.record(job, held, segment)
            keeping.add_blobs(self, job, segment.blobs)
            return segment.cause, tasks
        cause = segment.cause
        job.bad_ends[cause] = job.bad_ends.get(cause, 0) + len(tasks)
        policy = job.spec.retry
        rule = policy.rule_for(cause) if policy is not None else None
        if rule is not None:
            final, parts = retrying.on_end(self, job, held, segment, rule)
            for part in parts:
                self.record(job, held, part)
            return cause, final
        final = tasks
        counter, most = job.failures, job.spec.retries
        is_spaceless = cause is Cause.NO_SPACE  # the peer's fault: another may have room
        if is_spaceless:
            counter = job.spaceless
            # What must not start twice runs again only if the job says so.
            most = SPACELESS_MAX if job.spec.start is Start.LEAST else most
        if most and cause not in NEVER_RETRIED:
            final = tasks & counter.at_least(most)
            again = tasks - final
            for part in segment.parts(again):
                self.events.append(Retried(job.id, grant, held.peer, part))
            if is_spaceless:
                job.spaceless = job.spaceless.plus(again)
            else:
                job.failures = job.failures.plus(again)
            job.attempts_failed += len(again)
            job.waiting = job.waiting | again
        for part in segment.parts(final):
            self.record(job, held, part)
        return cause, final

    def dump(self) -> object:
        """Everything, in a canonical form: for referees that compare states."""
        return dump(self)


def _without_data(event: Event) -> object:
    """Results are the same bytes on all peers because the log is: the hash leaves them out."""
    if isinstance(event, JobAdded):
        return ("JobAdded", event.job)
    if isinstance(event, KeyChanged):
        return ("KeyChanged", event.key, event.version, event.value is None)
    if isinstance(event, (Recorded, Retried)):  # a union would be made anew each time
        s = event.segment
        return (type(event).__name__, event.job, event.grant, event.peer, s.start, s.stop, s.cause)
    return event
