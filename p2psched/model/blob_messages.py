"""Calls about blobs, and their answers: the part of `model.messages` that moves large data.

Tags are among those of all calls and answers, and for ever.
"""

from __future__ import annotations

import msgspec

from p2psched.model.blob import BlobRef
from p2psched.model.ids import PeerId
from p2psched.model.taskset import TaskSet


class StatBlob(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """The list of a blob's chunks, from whichever peer has it. With `here` only of this peer."""

    ref: BlobRef
    here: bool = False


class ReadBlob(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """One chunk, from whichever peer has it. With `here` only of this peer."""

    ref: BlobRef
    chunk: int
    here: bool = False


class BeginUpload(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """A client has a blob for this peer. Answered with what is missing of it, so that an upload
    goes on after a break. `digests` are those of its chunks, behind each other."""

    ref: BlobRef
    digests: bytes


class UploadChunk(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Not durable before `EndUpload` is answered."""

    ref: BlobRef
    chunk: int
    data: bytes


class EndUpload(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Answered once the blob is durable on a majority of the voters' disks, and pinned there for
    a while: until its job is submitted nobody takes it for garbage."""

    ref: BlobRef


class CopyBlob(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """One peer asks another to have a blob on its disk. Answered once it is durable there."""

    ref: BlobRef
    source: PeerId  # who has it now
    pin: bool = False  # a job that refers to it is about to be submitted


BlobCall = StatBlob | ReadBlob | BeginUpload | UploadChunk | EndUpload | CopyBlob


class BlobList(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The digests of a blob's chunks, behind each other."""

    digests: bytes


class BlobChunk(msgspec.Struct, frozen=True, array_like=True, tag=13):
    data: bytes


class UploadState(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Ranges of chunks that are missing; none: the peer has them all."""

    missing: TaskSet


BlobAnswer = BlobList | BlobChunk | UploadState
