"""The whole state machine as bytes, and back: what a snapshot of the ledger stands for.

An image mirrors each class field by field, under the same names; a new attribute needs one line
here (at the end, with a default, so that older snapshots can still be read), and a test fails
until it is there. Equal machines give equal bytes on every peer: dictionaries keep their order,
which is part of the state, and nothing whose order is not may be held in it (a set is refused).
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core.counter import RangeCounter
from p2psched.core.forgotten import Forgotten, Generation
from p2psched.core.jobs import BlobKey, HeldGrant, Job
from p2psched.core.machine import Machine
from p2psched.core.state import PeerRow
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Grant, PeerInfo
from p2psched.model.errors import Refused
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobHead, JobSpec, JobState
from p2psched.model.taskset import TaskSet

FORMAT: Final = 1
# Attributes of the machine that hold nothing between two entries.
TRANSIENT: Final = frozenset({"events"})


class CounterImage(msgspec.Struct, frozen=True, array_like=True):
    _levels: list[TaskSet]


class HeldGrantImage(msgspec.Struct, frozen=True, array_like=True):
    grant: Grant
    peer: PeerId
    incarnation: int
    tasks: TaskSet
    estimate_us: int


class JobImage(msgspec.Struct, frozen=True, array_like=True):
    id: JobId
    spec: JobHead
    full: JobSpec | None
    index: int
    submitted_wall_ms: int
    ended_wall_ms: int | None
    ended_ms: int
    state: JobState
    waiting: TaskSet
    grants: dict[Grant, HeldGrantImage]
    orphaned: TaskSet
    succeeded: TaskSet
    failed: TaskSet
    cancelled: TaskSet
    committed: dict[Grant, TaskSet]
    losses: CounterImage
    failures: CounterImage
    segments: int
    attempts_lost: int
    attempts_failed: int
    results_refused: int
    finished_by: dict[PeerId, int]
    estimate_us: int
    blobs: dict[BlobKey, ResultBlob]
    lost: TaskSet
    result_bytes: int
    pinned: bool


class PeerRowImage(msgspec.Struct, frozen=True, array_like=True):
    info: PeerInfo
    live: bool
    down_reason: str
    owned: int
    load_us: int


class GenerationImage(msgspec.Struct, frozen=True, array_like=True):
    since_ms: int
    ids: bytes  # sorted, eight bytes each


class ForgottenImage(msgspec.Struct, frozen=True, array_like=True):
    generations: list[GenerationImage]


class MachineImage(msgspec.Struct, frozen=True, array_like=True):
    jobs: dict[JobId, JobImage]
    peers: dict[PeerId, PeerRowImage]
    running: dict[JobId, None]
    ended: dict[JobId, None]
    whole: dict[JobId, None]
    unplaced: dict[JobId, None]
    with_blobs: dict[JobId, None]
    forgotten: ForgottenImage
    applied_index: int
    command_index: int
    stamp_ms: int
    wall_ms: int
    results_refused: int
    result_bytes: int
    estimate_us: int
    _hash: bytes
    _taken: dict[tuple[PeerId, int], None]


class _File(msgspec.Struct, frozen=True, array_like=True):
    format: int
    image: msgspec.Raw


IMAGES: Final[dict[type, type[msgspec.Struct]]] = {
    RangeCounter: CounterImage,
    HeldGrant: HeldGrantImage,
    Job: JobImage,
    PeerRow: PeerRowImage,
    Generation: GenerationImage,
    Forgotten: ForgottenImage,
}
_CLASSES: Final[dict[type, type]] = {image: cls for cls, image in IMAGES.items()}
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_file: Final = msgspec.msgpack.Decoder(_File).decode
_decode_image: Final = msgspec.msgpack.Decoder(MachineImage).decode


def encode_machine(machine: Machine) -> bytes:
    """Between two entries. Cost: O(state)."""
    assert not machine.events
    image = _image(machine, MachineImage)
    return _encode(_File(FORMAT, msgspec.Raw(_encode(image))))


def restore_machine(machine: Machine, data: bytes) -> None:
    """Put the state of `encode_machine` in the place of `machine`'s. Raises Refused if this
    version can't read it, and changes nothing then."""
    try:
        file = _decode_file(data)
        if file.format != FORMAT:
            raise Refused(
                f"a snapshot of the ledger is of format {file.format}, and this version reads "
                f"{FORMAT}: run the same version of p2psched as the other peers"
            )
        image = _decode_image(file.image)
    except msgspec.DecodeError as exc:
        raise Refused(
            f"a snapshot of the ledger holds what this version does not know ({exc}): run the same "
            "version of p2psched as the other peers"
        ) from exc
    for name in image.__struct_fields__:
        setattr(machine, name, _original(getattr(image, name)))
    machine.events.clear()


def _image(value: object, image: type[msgspec.Struct]) -> msgspec.Struct:
    if isinstance(value, Generation):
        return GenerationImage(value.since_ms, value.packed())
    return image(*(_part(getattr(value, name)) for name in image.__struct_fields__))


def _part(value: object) -> object:
    """A value as an image holds it."""
    image = IMAGES.get(type(value))
    if image is not None:
        return _image(value, image)
    assert not isinstance(value, set | frozenset), "its order would differ between peers"
    if isinstance(value, dict):
        return {key: _part(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_part(held) for held in value]
    return value


def _original(part: object) -> object:
    """The twin of `_part`; everything mutable in it is new."""
    if isinstance(part, GenerationImage):
        return Generation(part.since_ms, part.ids)
    cls = _CLASSES.get(type(part))
    if cls is not None:
        assert isinstance(part, msgspec.Struct)
        original: object = object.__new__(cls)
        for name in part.__struct_fields__:
            setattr(original, name, _original(getattr(part, name)))
        return original
    if isinstance(part, dict):
        return {key: _original(held) for key, held in part.items()}
    if isinstance(part, list):
        return [_original(held) for held in part]
    return part
