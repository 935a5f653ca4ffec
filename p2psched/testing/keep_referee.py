"""What must hold of jobs that are kept, forgotten and run again, and of large results.

A forgotten id starts nothing (E6, P9), a task has one result until it is run again (P6), who is
said to hold a large result was given it (P1), and what lacks copies gets them (L5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from p2psched.core.copies import held_by, lacking
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.model.commands import Command, DrainMode, Forget, Recorded
from p2psched.model.ids import JobId, PeerId
from p2psched.testing.promises import demand
from p2psched.testing.shadow import Shadow
from p2psched.testing.shadow_job import ENDED, ShadowJob

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer


class KeepReferee:
    """`disks`: of all peers, digests of what was ever on each; False if it is not any more."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self.disks: dict[PeerId, Mapping[bytes, bool]] = {}

    def on_committed(self, command: Command, stamp_ms: int) -> None:
        """Before the shadow applies it."""
        if not isinstance(command, Forget) or command.ended_ms is None:
            return
        job = self._shadow.jobs.get(command.job)
        if job is None or job.state == "running" or job.ended_ms != command.ended_ms:
            return
        ledger_ms, keep_ms = max(stamp_ms, self._shadow.stamp_ms), job.spec.keep_ms
        if command.due_ms is not None and ledger_ms < command.due_ms:
            return  # it is to be refused
        demand(
            keep_ms is not None and ledger_ms - job.ended_ms >= keep_ms,
            "P9",
            f"job {command.job} is forgotten {ledger_ms - job.ended_ms} ms after its end, and is "
            f"kept for {keep_ms} ms",
        )

    def on_recorded(self, event: Recorded) -> None:
        for blob in event.segment.blobs:
            for peer in blob.holders:
                demand(
                    blob.ref.digest in self.disks.get(peer, {}),
                    "P1",
                    f"result {event.job}/{blob.index} {blob.name!r} never came to holder {peer}",
                )

    def on_gone(self, peer: PeerId, digests: Sequence[bytes]) -> None:
        """The power of a peer has gone: what it was given and told of may not go with it."""
        if not digests:
            return
        for name, job in self._shadow.jobs.items():
            for (index, blob_name), (digest, holders) in job.blobs.items():
                demand(
                    digest not in digests or peer not in holders,
                    "P1",
                    f"result {name}/{index} {blob_name!r} was not durable on holder {peer}",
                )

    def compare(self, machine: Machine, names: Sequence[JobId]) -> None:
        """`machine` is as far as the shadow is."""
        total = sum(job.result_bytes for job in machine.jobs.values())
        demand(machine.result_bytes == total, "L2", "bytes of results don't add up")
        for name in names:
            job, twin = machine.jobs.get(name), self._shadow.jobs.get(name)
            demand((job is None) == (twin is None), "P9", f"job {name} is there for one only")
            if job is not None and twin is not None and _view(job) != _twin_view(twin):
                demand(False, "P6", f"results of {name}: {_differ(job, twin)}")

    # --- at the end ---

    def is_settled(self, peers: Sequence[SimPeer]) -> bool:
        """True if nothing is left to copy, to confess or to forget. All peers know the same."""
        return next(self._unsettled(peers), None) is None

    def check_end(self, peers: Sequence[SimPeer]) -> None:
        machine = peers[0].scheduler.machine
        self.compare(machine, [*machine.jobs])
        what = next(self._unsettled(peers), None)
        demand(what is None, "L5", f"{what} in the end")

    def _unsettled(self, peers: Sequence[SimPeer]) -> Iterator[str]:
        machine = peers[0].scheduler.machine
        for lack in lacking(machine, {peer.id for peer in peers}):
            yield f"{lack.job}/{lack.blob.index} lacks copies"
        yield from self._only_on_drained({peer.id for peer in peers})
        for peer in peers:
            for job, blob in held_by(machine, peer.id):
                if not peer.blobs.get(blob.ref.digest):
                    yield f"peer {peer.number} does not say that it lost {job}/{blob.index}"
        for name in machine.ended:
            kept = machine.jobs[name]
            if kept.spec.keep_ms is not None and not kept.pinned:
                yield f"job {name} is not forgotten"

    def _only_on_drained(self, takers: Set[PeerId]) -> Iterator[str]:
        """`takers` make up for lost copies."""
        shadow = self._shadow
        up = {peer for peer, (_, is_up) in shadow.live.items() if is_up}
        staying = {peer for peer in up if shadow.drains.get(peer, DrainMode.OFF) is DrainMode.OFF}
        for name, job in shadow.jobs.items():
            for (index, _), (_, holders) in job.blobs.items():
                could = len(staying & (holders | takers))
                want = min(job.spec.copies, could) if holders & up else 0
                if len(holders & staying) < want:
                    yield f"{name}/{index} lacks copies on peers that are not drained"


def _view(job: Job) -> object:
    blobs = {name: (blob.ref.digest, blob.holders) for name, blob in job.blobs.items()}
    ended_ms = job.ended_ms if job.ended else None
    killed = {i: peers for i, peers in job.killed.items() if peers}
    if killed:
        # Of what has ended it says nothing: a job that ran again may have forgotten it
        # (`Job.shrink`).
        is_open = job.spec.tasks - job.succeeded - job.failed - job.cancelled
        killed = {i: peers for i, peers in killed.items() if i in is_open}
    return set(job.succeeded), set(job.failed), set(job.lost), blobs, job.pinned, ended_ms, killed


def _twin_view(twin: ShadowJob) -> object:
    blobs = {name: (digest, tuple(sorted(held))) for name, (digest, held) in twin.blobs.items()}
    ended_ms = twin.ended_ms if twin.state != "running" else None
    failed = twin.failed
    succeeded = set(twin.causes) - failed
    killed = {i: peers for i, peers in twin.killed.items() if peers and twin.owner[i] != ENDED}
    return succeeded, failed, twin.lost, blobs, twin.pinned, ended_ms, killed


def _differ(job: Job, twin: ShadowJob) -> str:
    return f"{_view(job)} and not {_twin_view(twin)}"[:400]
