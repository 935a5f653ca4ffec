"""Calls of a backup, and their answers: the part of `model.messages` that tells a whole state.

Results, history and blobs come by the calls that all clients use. Tags are among those of all calls
and answers, and for ever.
"""

from __future__ import annotations

import msgspec

from p2psched.model.ids import ClusterId
from p2psched.model.raft import Snapshot


class BeginBackup(msgspec.Struct, frozen=True, array_like=True, tag=76):
    """Make a snapshot that has all that was acknowledged anywhere before this call."""


class ReadState(msgspec.Struct, frozen=True, array_like=True, tag=77):
    """Bytes of the state of a snapshot of the peer that receives it."""

    snapshot: Snapshot
    offset: int
    size: int


BackupCall = BeginBackup | ReadState


class BackupBegun(msgspec.Struct, frozen=True, array_like=True, tag=76):
    snapshot: Snapshot
    cluster: ClusterId
    peer: str  # name


class StateRead(msgspec.Struct, frozen=True, array_like=True, tag=77):
    data: bytes | None  # None: newer snapshots have taken its place


BackupAnswer = BackupBegun | StateRead
