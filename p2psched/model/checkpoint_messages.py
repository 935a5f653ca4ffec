"""Calls about checkpoints, between peers, and their answers: a part of `model.messages`.

Tags are among those of all calls and answers, and for ever.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.blob_messages import BlobCall
from p2psched.model.checkpoints import FOLDER, Head
from p2psched.model.ids import JobId, PeerId, is_id
from p2psched.model.limits import GIB, KIB, TASK_INDEX_MAX

PIECE_BYTES: Final = 512 * KIB
CHECKPOINT_BYTES_MAX: Final = 1024 * GIB
_NUMBER_MAX: Final = 10**12


def _check(head: Head) -> None:
    """Raises ValueError for what is no head of a checkpoint."""
    grant, number = head.key
    if not (
        is_id(head.job)
        and 0 <= head.task <= TASK_INDEX_MAX
        and 0 <= grant < 1 << 63
        and 0 < number < _NUMBER_MAX
        and 0 <= head.wall_ms < 1 << 63
        and 0 <= head.body_bytes <= CHECKPOINT_BYTES_MAX
        and 0 <= head.kind <= FOLDER
    ):
        raise ValueError("these are no words about a checkpoint")


class FindCheckpoints(msgspec.Struct, frozen=True, array_like=True, tag=137):
    """Which ones of a task are on the disk of the peer that is asked."""

    job: JobId
    task: int

    def __post_init__(self) -> None:
        if not is_id(self.job) or not 0 <= self.task <= TASK_INDEX_MAX:
            raise ValueError("a checkpoint is of a task of a job")


class ReadCheckpoint(msgspec.Struct, frozen=True, array_like=True, tag=138):
    """A piece of the file, as it is on the disk of the peer that is asked."""

    head: Head
    offset: int

    def __post_init__(self) -> None:
        _check(self.head)
        if not 0 <= self.offset < self.head.file_bytes:
            raise ValueError("a checkpoint is not that long")


class CopyCheckpoint(msgspec.Struct, frozen=True, array_like=True, tag=139):
    """One peer asks another to have a checkpoint on its disk. Answered once it is durable there."""

    head: Head
    source: PeerId

    def __post_init__(self) -> None:
        _check(self.head)


CheckpointCall = FindCheckpoints | ReadCheckpoint | CopyCheckpoint
DataCall = BlobCall | CheckpointCall


class CheckpointList(msgspec.Struct, frozen=True, array_like=True, tag=140):
    heads: tuple[Head, ...]  # the newest first

    def __post_init__(self) -> None:
        for head in self.heads:
            _check(head)


class CheckpointPiece(msgspec.Struct, frozen=True, array_like=True, tag=141):
    data: bytes


CheckpointAnswer = CheckpointList | CheckpointPiece
