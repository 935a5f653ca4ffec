"""What fits an entry: proposals, and what is added to them."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from p2psched.model.actions import Act, size_of
from p2psched.model.commands import Command, Complete, Envelope, Retry, SubmitJob
from p2psched.model.job import argument_size
from p2psched.model.limits import ENTRY_BYTES_MAX, ENTRY_BYTES_WITH_PLACES_MAX

_FIELDS_BYTES: Final = 200  # of a command, besides what callers put in

_encode: Final = msgspec.msgpack.Encoder().encode


def take_proposals(waiting: deque[Envelope]) -> tuple[tuple[Envelope, ...], list[bytes]]:
    """Of what waits as many as fit one entry, oldest first, and each as it will stand in there."""
    taken: list[Envelope] = []
    encoded: list[bytes] = []
    size = 0
    while waiting:
        data = _encode(waiting[0])
        size += len(data)
        if taken and size > ENTRY_BYTES_MAX:
            break
        taken.append(waiting.popleft())
        encoded.append(data)
    return tuple(taken), encoded


def as_fits(proposals: list[bytes], added: tuple[Envelope, ...]) -> list[bytes]:
    """What the coordinator added, as far as the entry still fits a frame: the rest is placed in a
    later round."""
    encoded: list[bytes] = []
    if not added:
        return encoded
    size = sum(map(len, proposals))
    for envelope in added:
        data = _encode(envelope)
        size += len(data)
        if size > ENTRY_BYTES_WITH_PLACES_MAX:
            break
        encoded.append(data)
    return encoded


def weight(command: Command) -> int:
    """Bytes that it takes in memory, about."""
    match command:
        case SubmitJob(spec=spec) | Retry(spec=spec):
            return _FIELDS_BYTES + argument_size(spec.work)
        case Complete(segments=segments):
            return _FIELDS_BYTES + sum(len(segment.data) for segment in segments)
        case Act(action=action):
            return _FIELDS_BYTES + size_of(action)
        case _:
            return _FIELDS_BYTES
