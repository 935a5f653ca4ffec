"""The whole state machine as bytes, and back: what a snapshot of the ledger stands for.

An image mirrors each class field by field, under the same names; a new attribute needs one line
here (at the end, with a default, so that older snapshots can still be read), and a test fails
until it is there. Jobs and their grants are their own images. Equal machines give equal bytes on
every peer: dictionaries keep their order, which is part of the state; nothing else that has an
order may be held in it (no set, but of ids, which are sorted).
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.core import backing, dependencies, fitting
from p2psched.core.acts import rebuild
from p2psched.core.forgotten import Forgotten, Generation
from p2psched.core.job_table import JobTable
from p2psched.core.jobs import Job
from p2psched.core.levels import check_known
from p2psched.core.lock_table import Claim
from p2psched.core.machine import Machine
from p2psched.core.queue_state import Item, ItemKey, QueueClaim, QueueHead
from p2psched.core.state import PeerRow
from p2psched.model.commands import DrainMode, PeerInfo, Rejected
from p2psched.model.errors import Refused
from p2psched.model.ids import JobId, PeerId
from p2psched.model.key_actions import Entry
from p2psched.model.lease_actions import Lease, LeaseId
from p2psched.model.lock_actions import ClaimId
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.webhook import Webhook

FORMAT: Final = 1
# Attributes of the machine that hold nothing between two entries, or that are its process's own.
TRANSIENT: Final = frozenset({"events", "known_level", "ownings", "turning"})
# What follows from the rest, and is made anew.
DERIVED: Final = frozenset(
    {
        *("sent", "acted_bytes", "lease_ends", "key_order", "key_bytes", "lease_keys", "locks"),
        *("queues", "choosy", "apart", "job_dues", "backed"),
        *("ranked", "lineage"),
        "running_bytes",
    }
)


class PeerRowImage(msgspec.Struct, frozen=True, array_like=True):
    info: PeerInfo
    live: bool
    down_reason: str
    owned: int
    load_us: int
    stopped: bool = False
    alone: tuple[JobId, int] | None = None
    blamed: tuple[JobId, int] | None = None
    suspects: int = 0
    drain: DrainMode = DrainMode.OFF
    offers: Offers = NOTHING
    gpus: int = 0
    memory_mib: int = 0


class GenerationImage(msgspec.Struct, frozen=True, array_like=True):
    since_ms: int
    ids: bytes  # sorted, eight bytes each


class ForgottenImage(msgspec.Struct, frozen=True, array_like=True):
    generations: list[GenerationImage]


class MachineImage(msgspec.Struct, frozen=True, array_like=True):
    jobs: dict[JobId, msgspec.Raw]  # decoded one by one
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
    _taken: dict[tuple[PeerId, int], Rejected | None]
    suspected: dict[JobId, None] = {}
    level: int = 1
    generation: int = 1
    webhooks: dict[str, Webhook] = {}
    gone: dict[PeerId, str] = {}
    callers: dict[int, tuple[int, int]] = {}
    acted: dict[tuple[int, int], bytes] = {}
    leases: dict[LeaseId, Lease] = {}
    keys: dict[str, Entry] = {}
    key_marks: list[tuple[int, int]] = []
    key_marks_apart: int = 1
    lock_claims: dict[ClaimId, Claim] = {}
    lock_token: int = 0
    queue_heads: dict[str, QueueHead] = {}
    queue_items: dict[ItemKey, Item] = {}
    queue_claims: dict[str, QueueClaim] = {}
    last_receipt: int = 0
    generation_ms: int = 0


class _File(msgspec.Struct, frozen=True, array_like=True):
    format: int
    image: msgspec.Raw


IMAGES: Final[dict[type, type[msgspec.Struct]]] = {
    PeerRow: PeerRowImage,
    Generation: GenerationImage,
    Forgotten: ForgottenImage,
}
_FIELDS: Final = MachineImage.__struct_fields__
assert _FIELDS[0] == "jobs"
_CLASSES: Final[dict[type, type]] = {image: cls for cls, image in IMAGES.items()}


def _getter(image: type[msgspec.Struct]) -> Callable[[object], tuple[object, ...]]:
    return operator.attrgetter(*image.__struct_fields__)


_PARTS: Final = {cls: _getter(image) for cls, image in IMAGES.items()}
_parts_of_machine: Final = _getter(MachineImage)


def _parts(value: object) -> object:
    """What the encoder does not know itself, as the fields of its image. One call an object: tens
    of thousands of jobs must not hold up the loop."""
    if isinstance(value, Generation):
        return value.since_ms, value.packed()
    if isinstance(value, JobTable):
        return {n: msgspec.Raw(j) if isinstance(j, bytes) else j for n, j in value.held().items()}
    if isinstance(value, Forgotten):
        return (_PARTS[type(value)](value),)  # of a single field there is no tuple
    return _PARTS[type(value)](value)


encode_part: Final = msgspec.msgpack.Encoder(enc_hook=_parts).encode
_decode_file: Final = msgspec.msgpack.Decoder(_File).decode
_decode_image: Final = msgspec.msgpack.Decoder(MachineImage).decode
_decode_job: Final = msgspec.msgpack.Decoder(Job).decode


def encode_machine(machine: Machine) -> bytes:
    """Between two entries. Cost: O(state)."""
    assert not machine.events
    return encode_part((FORMAT, _parts_of_machine(machine)))


def restore_machine(machine: Machine, data: bytes | memoryview) -> None:
    """Put the state of `encode_machine` in the place of `machine`'s. Raises Refused if this
    version can't read it, and changes nothing then. Needs no more memory than the new state."""
    try:
        file = _decode_file(data)
        if file.format != FORMAT:
            raise Refused(
                f"a snapshot of the ledger is of format {file.format}, and this version reads "
                f"{FORMAT}: run the same version of p2psched as the other peers"
            )
        image = _decode_image(file.image)
        check_known(image.level, machine.known_level)
        parts = [(name, _original(getattr(image, name))) for name in _FIELDS[1:]]
        jobs = _jobs(image)
        parts.append((_FIELDS[0], jobs))
    except (msgspec.DecodeError, ValueError) as exc:
        raise Refused(
            f"a snapshot of the ledger holds what this version does not know ({exc}): run the same "
            "version of p2psched as the other peers"
        ) from exc
    for name, value in parts:
        if isinstance(value, dict) and isinstance(getattr(machine, name), OrderedDict):
            value = OrderedDict(value)
        setattr(machine, name, value)
    machine.events.clear()
    machine.sent.clear()
    machine.running_bytes = 0
    for job in machine.jobs.values():
        machine.note_sent(job)
    dependencies.rebuild(machine)
    rebuild(machine)
    fitting.rebuild(machine)
    backing.rebuild(machine)


def _jobs(image: MachineImage) -> JobTable:
    """One after another: what ended a while ago is never an object along with others."""
    jobs, old = JobTable(), image.ended.keys() - image.whole.keys()
    for name, raw in image.jobs.items():
        jobs[name] = _decode_job(raw)
        if name in old:
            jobs.pack(name)
    return jobs


def _original(part: object) -> object:
    """What a part of an image stands for; it was decoded for us, so it may be changed."""
    cls = _CLASSES.get(type(part))
    if cls is not None:
        return _restored(cls, part)
    if isinstance(part, dict):
        if part and type(next(iter(part.values()))) in _CLASSES:
            return {key: _original(held) for key, held in part.items()}
    elif isinstance(part, list):
        return [_original(held) for held in part]
    return part


def _restored(cls: type, part: object) -> object:
    if isinstance(part, GenerationImage):
        return Generation(part.since_ms, part.ids)
    assert isinstance(part, msgspec.Struct)
    restored: object = object.__new__(cls)
    for name in part.__struct_fields__:
        setattr(restored, name, _original(getattr(part, name)))
    return restored
