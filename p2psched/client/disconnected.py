"""What one peer keeps while it is cut off from the majority: `client.cut_off`, in the words of
`p2psched spool` and `p2psched reconcile`.

All of it is answered by the peer that the client talks to, without a majority too: open the client
with the address of that peer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from p2psched.client.find import who_am_i
from p2psched.client.session import Session
from p2psched.model.errors import NotFound, UsageError
from p2psched.model.ids import JobId, new_id, short
from p2psched.model.job import JobSpec
from p2psched.model.messages import Done
from p2psched.model.reconcile import Reconciliation
from p2psched.model.separation_messages import (
    GetReconciles,
    ListSpool,
    ReconcileList,
    RemoveSpooled,
    SpooledJob,
    SpoolJob,
    SpoolList,
    SpoolReceipt,
)

if TYPE_CHECKING:
    from p2psched.client.programs import ProgramOptions


class Disconnected:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def spool(self, job: JobId, spec: JobSpec) -> SpoolReceipt:
        """Have the peer keep a job on its disk, and submit it under this id once it can. A receipt:
        the job is not accepted yet. Raises Refused, if the spool is full or the job too large."""
        return await self._session.call(SpoolJob(job, spec), SpoolReceipt)

    async def spool_program(
        self, argv: Sequence[str], **options: Unpack[ProgramOptions]
    ) -> SpoolReceipt:
        """The same of a command line. Options are those of `Client.submit_program`."""
        from p2psched.client.programs import pack_program  # noqa: PLC0415 (who only looks packs nothing)

        spec, uploads = pack_program(argv, submitter=who_am_i(), **options)
        if uploads:
            raise UsageError("the spool takes no large files: pass paths that every peer knows")
        return await self.spool(JobId(new_id(random.SystemRandom())), spec)

    async def spooled(self) -> SpoolList:
        """What waits there, in order."""
        return await self._session.call(ListSpool(), SpoolList)

    async def find(self, text: str) -> SpooledJob:
        """The one with this id, the first digits of it, or this name. Raises NotFound."""
        found = [
            job
            for job in (await self.spooled()).jobs
            if job.name == text or (text and job.job.startswith(text))
        ]
        if not found:
            raise NotFound(f"no job {text!r} waits in this peer's spool: `p2psched spool list`")
        if len({job.job for job in found}) > 1:
            ids = ", ".join(short(job.job) for job in found[:3])
            raise UsageError(f"{text!r} names {len(found)} jobs in the spool: {ids}")
        return found[0]

    async def remove(self, job: JobId) -> None:
        """Have the peer forget it. Raises Refused once it is on its way to the cluster."""
        await self._session.call(RemoveSpooled(job), Done)

    async def reports(self) -> tuple[Reconciliation, ...]:
        """Of the newest times without a majority, oldest first."""
        return (await self.reconciles()).reports

    async def reconciles(self) -> ReconcileList:
        return await self._session.call(GetReconciles(), ReconcileList)
