"""Drives what a peer keeps for when it is cut off: between its core and the files for that.

All files are written by one thread, in the order in which the core said so. A disk that takes
nothing costs notes and results here, which are run again; of the spool the caller is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar, cast

import msgspec

from p2psched.core.separation import Separation
from p2psched.core.separation_effects import (
    KeepOwned,
    KeepResults,
    Recalled,
    Reported,
    SeparationEffect,
    SeparationEvent,
    SpoolDecided,
)
from p2psched.core.separation_effects import Spooled as InSpool
from p2psched.model.config import Config
from p2psched.model.errors import NoSpace, NotFound, P2PSchedError, Refused, UsageError
from p2psched.model.ids import JobId, is_id, short
from p2psched.model.job import argument_size, blobs_of
from p2psched.model.job_head import head_of
from p2psched.model.limits import MIB
from p2psched.model.messages import AnswerBody, CallBody, Done
from p2psched.model.raft import Membership
from p2psched.model.reconcile import Judged, Reconciliation
from p2psched.model.separation_messages import (
    GetReconciles,
    GrantsNow,
    GrantsOf,
    ListSpool,
    ReconcileList,
    RemoveSpooled,
    SeparationCall,
    SpooledJob,
    SpoolJob,
    SpoolList,
    SpoolReceipt,
)
from p2psched.model.status_messages import SeparationStatus
from p2psched.observe.beat import until_beat
from p2psched.peer.errands import Errands
from p2psched.ports.clock import Clock
from p2psched.store.folder import DataFolder
from p2psched.store.separation_files import Moment, Note, SeparationFiles, Spooled, this_boot
from p2psched.store.space import is_no_space

log = logging.getLogger(__name__)

SPOOL_JOBS_MAX: Final = 256
SPOOL_BYTES_MAX: Final = 32 * MIB  # of code, arguments and files of its jobs
MARK_S: Final = 1.0  # how well a process that starts knows when the one before it was cut off
GRANTS_S: Final = 3.0  # for the grants that count instead, of a report

T = TypeVar("T")
Ask = Callable[[CallBody], Awaitable[AnswerBody]]


class Loop(Protocol):
    """What drives the core."""

    keep: Callable[[SeparationEffect], None]

    @property
    def separation(self) -> Separation: ...

    def on_separation(self, event: SeparationEvent) -> None: ...


class SeparationKeeper:
    """Of one process. `begin` before the core does."""

    def __init__(
        self,
        folder: DataFolder,
        loop: Loop,
        config: Config,
        clock: Clock,
        *,
        follows: Callable[[], tuple[int, Membership]] = lambda: (0, Membership()),
        ask: Ask | None = None,
    ) -> None:
        """`follows`: how far it is fed, and who holds the ledger; `ask`: one of those."""
        self._files = SeparationFiles(folder.path)
        self._loop, self._core = loop, loop.separation
        self._clock, self._follows, self._ask = clock, follows, ask
        self._max_ms = config.max_disconnect_ms
        self._boot = this_boot()
        self._spool: dict[JobId, Spooled] = {}  # in order
        self._spool_bytes = 0
        self._has_note = False
        self._reports: asyncio.Queue[Reconciliation] = asyncio.Queue()
        self._newest: Reconciliation | None = None
        self._is_telling = False  # a report is on its way to the disk
        self._errands: Errands[object] = Errands("cutoff")

    def forget_owned(self) -> None:
        """All of it was given back."""
        self._loop.keep = _nothing
        self._write(partial(self._files.note, Note(), {}))

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Before the core does. Raises Damaged."""
        await self._recall()
        group.create_task(self._mark())
        group.create_task(self._report())

    async def _recall(self) -> None:
        """Tell the core what the process before this one left. Raises Damaged."""
        now = self._now()

        def read() -> tuple[Recalled, list[Spooled], list[Reconciliation]]:
            self._files.open()
            spooled = self._files.spooled()
            found = self._files.recollect(now)
            return Recalled(now.now_ms, found), spooled, self._files.reports()

        event, spooled, reports = await self._do(read)
        for one in spooled:
            self._take_in(one)
        self._newest = reports[-1] if reports else None
        self._has_note = bool(event.recollection.owned)
        found = event.recollection
        if found.has_work or found.spool:
            log.warning(
                "recalls",
                extra={
                    "away_ms": found.away_ms,
                    "tasks": sum(len(part.tasks) for part in found.owned),
                    "results": sum(len(kept.segment.tasks) for kept in found.results),
                    "spooled": len(found.spool),
                },
            )
        self._loop.keep = self.perform
        self._loop.on_separation(event)

    def close(self) -> None:
        self._errands.close()

    def _now(self) -> Moment:
        return Moment(self._boot, self._clock.now_ms(), self._clock.wall_ms())

    async def _mark(self) -> None:
        told = False
        while True:
            await asyncio.sleep(until_beat(MARK_S))
            core = self._core
            if self._has_note or core.is_cut:
                self._write(partial(self._files.mark, self._now(), core.away_ms))
            if core.is_cut != told:
                told = core.is_cut
                log.warning("cut-off" if told else "no-longer-cut-off")

    # --- what the core wants ---

    def perform(self, effect: SeparationEffect) -> None:
        match effect:
            case KeepOwned():
                self._note(effect)
            case KeepResults(results=results, anew=anew):
                self._write(partial(self._files.keep, results, anew=anew))
            case SpoolDecided(outcome=outcome):
                log.info("spooled-job", extra={"job": outcome.job, "outcome": outcome.outcome})
                self._leave(outcome.job)
                self._write(partial(self._files.take_out, outcome.job))
            case Reported(report=report):
                self._is_telling = True
                self._reports.put_nowait(report)

    def _note(self, effect: KeepOwned) -> None:
        cursor, group = self._follows()
        note = Note(effect.owned, effect.incarnation, effect.since, cursor, group)
        self._has_note = bool(effect.owned)
        self._write(partial(self._files.note, note, effect.specs))

    def _write(self, act: Callable[[], object]) -> None:
        self._errands.do(act, _told)

    async def _do(self, act: Callable[[], T]) -> T:
        """In the thread, and wait for it. Raises what it raises."""
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def then(told: object) -> None:
            if not done.done():
                done.set_result(told)

        self._errands.do(act, then)
        told = await done
        if isinstance(told, Exception):
            raise told
        return cast("T", told)

    # --- reports ---

    async def _report(self) -> None:
        while True:
            report = await self._reports.get()
            if self._ask is not None:
                report = await self._with_grants(report, self._ask)
            back_ms = self._clock.wall_ms() - report.told_ms
            report = msgspec.structs.replace(
                report, back_wall_ms=back_ms, began_wall_ms=back_ms - report.away_ms
            )
            for line in report.discarded:
                what = {"job": line.job, "tasks": str(line.tasks)}
                log.warning(
                    "RESULT_DISCARDED", extra=what | {"grant": line.grant, "current": line.current}
                )
            try:
                report = await self._do(partial(self._files.report, report))
            except OSError as error:
                log.error("report-not-kept", extra={"error": str(error)})  # noqa: TRY400
            self._newest = report
            self._is_telling = not self._reports.empty()
            if self._core.is_decided:
                self._write(self._files.drop_results)

    async def _with_grants(self, report: Reconciliation, ask: Ask) -> Reconciliation:
        """Who follows a feed isn't told who else has what it had."""
        try:
            async with asyncio.timeout(GRANTS_S):
                return msgspec.structs.replace(
                    report,
                    discarded=await _resolved(report.discarded, ask),
                    ended=await _resolved(report.ended, ask),
                )
        except (TimeoutError, P2PSchedError):
            return report  # without them

    # --- callers ---

    async def answer(self, body: SeparationCall) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        match body:
            case SpoolJob():
                return await self._put(body)
            case ListSpool():
                jobs = tuple(map(_shown, self._spool.values()))
                return SpoolList(jobs, self._core.away_ms if self._core.is_cut else 0)
            case RemoveSpooled(job=job):
                return await self._remove(job)
            case GetReconciles():
                reports = await self._do(self._files.reports)
                away_ms = self._core.away_ms if self._core.is_cut else 0
                is_open = self._core.is_open or self._is_telling
                return ReconcileList(tuple(reports), away_ms, len(self._spool), is_open)

    async def _put(self, body: SpoolJob) -> SpoolReceipt:
        job, spec = body.job, body.spec
        if not is_id(job):
            raise UsageError("a job's id is 32 hexadecimal digits")
        if blobs_of(spec.work):
            raise Refused(
                "the spool takes no job with large files or arguments, for nobody could have them: "
                "pass paths that every peer knows, or submit it once the cluster is back"
            )
        if job in self._spool:
            return self._receipt(job)
        size = argument_size(spec.work)
        if len(self._spool) >= SPOOL_JOBS_MAX or self._spool_bytes + size > SPOOL_BYTES_MAX:
            raise Refused(
                f"the spool is full: {len(self._spool)} jobs wait in it, of {SPOOL_JOBS_MAX} or "
                f"{SPOOL_BYTES_MAX // MIB} MiB at most. `p2psched spool rm` makes room"
            )
        spooled = Spooled(job, spec, self._clock.wall_ms())
        self._take_in(spooled)
        try:
            place = await self._do(partial(self._files.put, spooled))
        except OSError as error:
            self._leave(job)
            if is_no_space(error):
                raise NoSpace("this peer's disk is full: the job is not kept") from error
            raise Refused(f"the job is not kept: {error.strerror or error}") from error
        self._loop.on_separation(InSpool(self._clock.now_ms(), job, spec))
        return self._receipt(job, place)

    def _take_in(self, spooled: Spooled) -> None:
        self._spool[spooled.job] = spooled
        self._spool_bytes += argument_size(spooled.spec.work)

    def _leave(self, job: JobId) -> None:
        gone = self._spool.pop(job, None)
        if gone is not None:
            self._spool_bytes -= argument_size(gone.spec.work)

    def _receipt(self, job: JobId, place: int = 0) -> SpoolReceipt:
        return SpoolReceipt(job, place, list(self._spool).index(job) if job in self._spool else 0)

    async def _remove(self, job: JobId) -> Done:
        if job not in self._spool:
            raise NotFound(f"no job {short(job)} waits in this peer's spool: `p2psched spool list`")
        if not self._core.spooling.remove(job):
            raise Refused("it is on its way to the cluster: end it with `p2psched job cancel`")
        self._leave(job)
        await self._do(partial(self._files.take_out, job))
        return Done()

    # --- what others may look at ---

    def status(self) -> SeparationStatus:
        core = self._core
        return SeparationStatus(
            away_ms=core.away_ms if core.is_cut else 0,
            max_disconnect_ms=self._max_ms,
            overdue=len(core.overdue),
            spooled=len(self._spool),
            results_kept=sum(len(tasks) for _, _, tasks in core.results()),
            newest=self._newest,
        )


async def _resolved(lines: tuple[Judged, ...], ask: Ask) -> tuple[Judged, ...]:
    found: list[Judged] = []
    for line in lines:
        answer = await ask(GrantsOf(line.job, line.tasks)) if not line.current else None
        grants = answer.grants if isinstance(answer, GrantsNow) else ((line.current, line.tasks),)
        found += [Judged(line.job, line.grant, tasks, grant) for grant, tasks in grants]
    return tuple(found)


def _shown(spooled: Spooled) -> SpooledJob:
    head = head_of(spooled.spec)
    return SpooledJob(
        *(spooled.job, head.name, len(head.tasks), head.command, head.submitter),
        wall_ms=spooled.wall_ms,
    )


def _nothing(_effect: SeparationEffect) -> None:
    """Nothing more is kept."""


def _told(outcome: object) -> None:
    """Of a note that nobody waits for."""
    if isinstance(outcome, Exception):
        log.error("note-not-kept", extra={"error": str(outcome)})
