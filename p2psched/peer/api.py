"""What a peer answers: each call that a client or another peer may make.

Reads are linearizable (`reads`). Only `Stale`, `GetStatus`, `Contacts`, `WhereAre`, `TailOutput`,
`StopPeer`, and `FetchEvents` from a place on, are answered without a quorum. It refuses nothing
that any other peer would answer: what only the leader can do is passed on to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from p2psched.core.copies import referenced
from p2psched.core.swim.members import Member
from p2psched.core.verdicts import current_grants
from p2psched.model.act_messages import Do
from p2psched.model.backup_messages import BackupCall
from p2psched.model.checkpoint_messages import DataCall
from p2psched.model.commands import Cancel, Drain, Forget, Outcome, Pin, Rejected, Retry
from p2psched.model.errors import P2PSchedError, Unavailable, UsageError, from_wire
from p2psched.model.event_messages import EventCall
from p2psched.model.explain_messages import ExplainCall
from p2psched.model.feed_messages import KeepBlobs, KeptBlobs
from p2psched.model.gossip_messages import Compare, Tell
from p2psched.model.ids import ClusterId, JobId, PeerId
from p2psched.model.job import blobs_of
from p2psched.model.keep_messages import ForgetJob, PinJob, RetryJob
from p2psched.model.key_messages import GetKey, RangeKeys, WatchKeys
from p2psched.model.limits import JOB_RANGES_MAX
from p2psched.model.load_messages import GetLoads
from p2psched.model.lock_messages import AwaitLock, ListLocks
from p2psched.model.log_messages import LogCall
from p2psched.model.member_messages import MemberCall
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    CancelJob,
    CompactLedger,
    ContactList,
    Contacts,
    Done,
    DrainPeer,
    FetchHistory,
    FetchItem,
    FetchResults,
    FindJob,
    GetStatus,
    Join,
    ListJobs,
    ListPeers,
    OutputPiece,
    ReadBody,
    ShowJob,
    Stale,
    StaleAnswer,
    StopPeer,
    Submit,
    TailOutput,
    Wish,
)
from p2psched.model.once import Once, ResolveTasks, decision_of
from p2psched.model.progress_messages import ProgressCall
from p2psched.model.queue_messages import QueueCall
from p2psched.model.separation_messages import (
    GetReconciles,
    GrantsNow,
    GrantsOf,
    ListSpool,
    RemoveSpooled,
    SeparationCall,
    SpoolJob,
)
from p2psched.model.sighting_messages import Sightings, WhereAre
from p2psched.model.staleness import Staleness
from p2psched.model.status_messages import StatusAnswer
from p2psched.net.patience import Patience
from p2psched.peer.acts import Acts
from p2psched.peer.backfill import Source
from p2psched.peer.backups import Backups
from p2psched.peer.engines import embedded
from p2psched.peer.events_api import EventsApi
from p2psched.peer.explaining import Explaining
from p2psched.peer.keys_api import Watching
from p2psched.peer.large_data import LargeData
from p2psched.peer.loads import Loads
from p2psched.peer.locks import LocksApi
from p2psched.peer.logs import LogsApi
from p2psched.peer.members import Members
from p2psched.peer.others import Others
from p2psched.peer.progress import ProgressApi
from p2psched.peer.queues import QueuesApi
from p2psched.peer.reads import WAIT_MS_MAX, Reads
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.roster import NO_QUORUM, PATIENCE_S, Roster
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.separation import SeparationKeeper
from p2psched.peer.submissions import Submissions, SubmitAnswer
from p2psched.peer.wishes import command_of
from p2psched.ports.engine import Engine
from p2psched.run.live_output import Outputs

COMPACT_S: Final = 300.0  # for a state of any size, on a slow disk

# Each is put together once: that takes ten times as long as to look into it.
OfTasks = ExplainCall | ProgressCall | LogCall
Shared = Do | WatchKeys | AwaitLock | QueueCall | OfTasks  # what has a file of its own
Lasting = DataCall | CompactLedger | BackupCall  # takes as long as its bytes do, and bounds that
Apart = Lasting | MemberCall | EventCall | Shared  # what another part of the peer answers


class Api:
    def __init__(
        self,
        *,
        me: PeerId,
        name: str,
        cluster: ClusterId,
        scheduling: SchedulerLoop,
        ledger: Engine,
        results: ResultWriter,
        submissions: Submissions,
        acts: Acts,
        others: Others,
        source: Source,
        output: Outputs,
        data: LargeData,
        status: Callable[[], StatusAnswer],
        where: Callable[[WhereAre], Sightings],
        stop: Callable[[], None],
        secret: bytes,
        gossip: Callable[[], Mapping[PeerId, Member]],
        loads: Loads,
        separation: SeparationKeeper,
    ) -> None:
        self._me = me
        self._scheduling = scheduling
        self._machine = scheduling.scheduler.machine
        self._ledger = ledger
        self.submissions: Final = submissions
        self.acts: Final = acts
        self._others = others
        self._output = output
        self._data = data
        self._status = status
        self._where = where
        self._stop = stop
        self._members = Members(me, self._machine, ledger, others)
        self._loads = loads
        self._separation = separation
        self._patience = Patience(PATIENCE_S)
        self._roster = Roster(
            me, scheduling.scheduler, ledger, others, gossip=gossip, seen=loads.seen
        )
        self._reads = Reads(
            scheduling=scheduling,
            ledger=ledger,
            results=results,
            source=source,
            roster=self._roster,
            patience=self._patience,
        )
        self._locks = LocksApi(scheduling, ledger, self._reads.linearize)
        self._explaining = Explaining(scheduling, others, self._reads.linearize)
        self._logs = LogsApi(
            me=me,
            results=results,
            source=source,
            others=others,
            output=output,
            linearize=self._reads.linearize,
        )
        self._progress = ProgressApi(
            me, scheduling.scheduler.owner.pacing, others, self._owners, scheduling.now_ms
        )
        self._queues = QueuesApi(scheduling, self._reads.linearize)
        self._backups = Backups(ledger, self._reads.linearize, cluster=cluster, name=name)
        self.events: Final = EventsApi(
            scheduling, ledger, source, self._reads.linearize, me=me, secret=secret, cluster=cluster
        )
        self._watching = Watching(scheduling, self.events, self._reads.linearize)
        self._patience_whole = Patience(PATIENCE_S + WAIT_MS_MAX / 1000)

    def _owners(self, job: JobId) -> list[PeerId] | None:
        known = self._machine.jobs.get(job)
        return (
            None
            if known is None
            else [h.peer for h in (*known.grants.values(), *known.backups.values())]
        )

    async def answer(self, body: CallBody) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        try:
            if isinstance(body, Lasting):
                return await self._answer(body)
            async with self._patience_whole.limit():
                return await self._answer(body)
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc

    async def _apart(self, body: Apart) -> AnswerBody:
        if isinstance(body, DataCall):
            return await self._data.answer(body)
        if isinstance(body, CompactLedger):
            return await self._compact()
        if isinstance(body, MemberCall):
            return await self._members.answer(body)
        if isinstance(body, EventCall):
            return await self.events.answer(body)
        if isinstance(body, Do):
            return await self.acts.answer(body)
        if isinstance(body, WatchKeys):
            return await self._watching.answer(body)
        if isinstance(body, AwaitLock):
            return await self._locks.wait(body)
        if isinstance(body, QueueCall):
            return await self._queues.answer(body)
        if isinstance(body, OfTasks):
            return await self._of_tasks(body)
        return await self._backups.answer(body)

    async def _of_tasks(self, body: OfTasks) -> AnswerBody:
        if isinstance(body, ProgressCall):
            return await self._progress.answer(body)
        if isinstance(body, LogCall):
            return await self._logs.answer(body)
        return await self._explaining.answer(body)

    async def _compact(self) -> AnswerBody:
        ledger = embedded(self._ledger, "has no snapshots, and its log can't be compacted")
        try:
            async with asyncio.timeout(COMPACT_S):
                return await ledger.compact()
        except TimeoutError as exc:
            raise Unavailable(
                f"the snapshot is not made after {COMPACT_S:.0f} s, and goes on: `p2psched status` "
                "tells the entry of the newest"
            ) from exc

    async def _answer(self, body: CallBody) -> AnswerBody:
        if isinstance(body, Apart):
            return await self._apart(body)
        match body:
            case Submit():
                return await self._submit(body)
            case CancelJob() | ForgetJob() | PinJob() | DrainPeer() | RetryJob() | ResolveTasks():
                return await self._keep(body)
            case TailOutput():
                return await self._tail_output(body)
            case Stale(body=asked):
                return await self._stale(asked)
            case (
                FindJob()
                | ShowJob()
                | ListJobs()
                | ListPeers()
                | GetKey()
                | RangeKeys()
                | ListLocks()
            ):
                return await self._reads.answer(body, fresh=True)
            case Compare() | Tell():
                raise UsageError("gossip goes from peer to peer")  # `Doors` has taken theirs
            case FetchResults() | FetchItem() | FetchHistory():
                return await self._reads.answer(body, fresh=True)
            case _:
                return await self._of_this_peer(body)

    async def _keep(self, body: Wish | RetryJob | ResolveTasks) -> Done:
        command: Cancel | Forget | Pin | Retry | Drain | Once
        match body:
            case ResolveTasks():
                command = Once(body.job, decision_of(body))
            case RetryJob(job=job, tasks=tasks):
                if len(tasks.ranges) > JOB_RANGES_MAX:
                    raise UsageError(f"a retry names up to {JOB_RANGES_MAX:,} ranges of tasks")
                command = Retry(job, await self._reads.spec(job), tasks)
            case _:
                command = command_of(body)
        try:
            async with self._patience.limit():
                _check(await self._scheduling.propose(command))
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc
        return Done()

    async def _of_this_peer(
        self,
        body: Join
        | GetStatus
        | Contacts
        | StopPeer
        | WhereAre
        | KeepBlobs
        | GetLoads
        | GrantsOf
        | SeparationCall,
    ) -> AnswerBody:
        match body:
            case Join():
                return await self._roster.join(body)
            case KeepBlobs(peer=peer, digests=digests):
                await self._reads.linearize()
                kept = referenced(self._machine, peer)
                return KeptBlobs(tuple(digest for digest in digests if digest in kept))
            case GetStatus():
                return self._status()
            case GetLoads():
                return self._loads.table()
            case GrantsOf(job=job, tasks=tasks):
                return GrantsNow(tuple(current_grants(self._machine.jobs.get(job), tasks)))
            case SpoolJob() | ListSpool() | RemoveSpooled() | GetReconciles():
                return await self._separation.answer(body)
            case WhereAre():
                return self._where(body)
            case Contacts():
                return ContactList(tuple(sorted(self._roster.contacts().items())))
            case StopPeer():
                self._stop()
                return Done()

    # --- jobs -------------------------------------------------------------------------------------

    async def _submit(self, body: Submit) -> AnswerBody:
        refs = blobs_of(body.spec.work)
        if refs:
            await self._data.secure(refs)
        answer: asyncio.Future[SubmitAnswer] = asyncio.get_running_loop().create_future()
        submission = self.submissions.make(body, partial(_settle, answer))
        submission.begin()
        try:
            return await answer
        finally:
            submission.cancel()

    async def _stale(self, asked: ReadBody) -> StaleAnswer:
        """The age is of before: while the answer is made it only gets younger."""
        age = Staleness(self._machine.applied_index, self._ledger.word_age_ms())
        answer = await self._reads.answer(asked, fresh=False)
        return StaleAnswer(answer, age)

    async def _tail_output(self, body: TailOutput) -> OutputPiece:
        piece = await self._output.tail(body.job, body.index, body.stderr, body.offset)
        if piece is not None:
            return OutputPiece(True, *piece)
        job = self._machine.jobs.get(body.job)
        held = job.owner_of(body.index) if job is not None else None
        if held is None or held.peer == self._me:
            return OutputPiece(False, body.offset, b"")
        answer = await self._others.call(held.peer, body)
        assert isinstance(answer, OutputPiece)
        return answer


def _settle(future: asyncio.Future[SubmitAnswer], answer: SubmitAnswer | P2PSchedError) -> None:
    if future.done():  # cancelled
        return
    if isinstance(answer, P2PSchedError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _check(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Rejected):
        raise from_wire(outcome.code, outcome.message, 1000)
    return outcome
