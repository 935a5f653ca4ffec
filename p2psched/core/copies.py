"""Which peer shall have a copy of which blob: a pure function of the ledger's state.

All peers rank the same way (highest random weight: Thaler and Ravishankar 1998), so that each knows
its own part of a repair without asking, and few copies move when a peer comes or goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator

import msgspec

from p2psched.core.keeping import live_holders
from p2psched.core.state import LedgerState
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.ids import JobId, PeerId


class Lack(msgspec.Struct, frozen=True):
    """A large result with fewer copies on live peers than there should be."""

    job: JobId
    blob: ResultBlob
    takers: tuple[PeerId, ...]  # who should have one now


def ranked(digest: bytes, peers: Iterable[PeerId]) -> list[PeerId]:
    """Peers from the best home for a blob to the worst."""
    return sorted(
        peers,
        key=lambda peer: hashlib.blake2b(digest + peer.encode(), digest_size=8).digest(),
    )


def live_peers(state: LedgerState) -> list[PeerId]:
    return sorted(peer for peer, row in state.peers.items() if row.live)


def wanted(state: LedgerState, copies: int) -> int:
    """Disks that a large result of a job can be on now."""
    return min(copies, sum(row.live for row in state.peers.values()))


def staying_peers(state: LedgerState) -> list[PeerId]:
    """Live peers whose disks count: who is drained may go at any time."""
    return sorted(p for p, row in state.peers.items() if row.live and not row.drains)


def lacking(state: LedgerState, among: Container[PeerId] | None = None) -> Iterator[Lack]:
    """Large results to copy once more. What no live peer has can't be; it is not named. `among`:
    who may be asked for that; a follower doesn't know what is lacking."""
    staying = dict.fromkeys(staying_peers(state))
    for job_id in state.with_blobs:
        job = state.jobs[job_id]
        for blob in job.blobs.values():
            here = live_holders(state, blob)
            count = sum(peer in staying for peer in here)
            others = [
                peer for peer in staying if peer not in here and (among is None or peer in among)
            ]
            want = min(job.spec.copies, count + len(others))
            if here and count < want:
                takers = ranked(blob.ref.digest, others)[: want - count]
                yield Lack(job_id, blob, tuple(takers))


def only_on(state: LedgerState, peer: PeerId) -> int:
    """Large results that would be short of copies without the disk of a peer that is drained; at
    least one other has to have each."""
    staying = frozenset(staying_peers(state))
    assert peer not in staying
    short = 0
    for job_id in state.with_blobs:
        job = state.jobs[job_id]
        want = max(1, min(job.spec.copies, len(staying)))
        for blob in job.blobs.values():
            count = sum(holder in staying for holder in blob.holders)
            short += peer in blob.holders and count < want
    return short


def held_by(state: LedgerState, peer: PeerId) -> Iterator[tuple[JobId, ResultBlob]]:
    """Large results that the ledger says `peer` has."""
    for job_id in state.with_blobs:
        for blob in state.jobs[job_id].blobs.values():
            if peer in blob.holders:
                yield job_id, blob


def without_holders(state: LedgerState) -> Iterator[tuple[JobId, ResultBlob]]:
    """Large results that the ledger says nobody has."""
    for job_id in state.with_blobs:
        job = state.jobs[job_id]
        for blob in job.blobs.values() if job.lost else ():
            if not blob.holders:
                yield job_id, blob


def holders_of(state: LedgerState, ref: BlobRef) -> tuple[PeerId, ...]:
    """Live peers that should have a result blob. Cost O(large results)."""
    for job_id in state.with_blobs:
        for blob in state.jobs[job_id].blobs.values():
            if blob.ref == ref:
                return live_holders(state, blob)
    return ()


def referenced(state: LedgerState, peer: PeerId) -> set[bytes]:
    """Digests of the blobs that `peer` has reason to keep."""
    digests: set[bytes] = {blob.ref.digest for _, blob in held_by(state, peer)}
    digests.update(ref.digest for ref in state.sent)
    return digests
