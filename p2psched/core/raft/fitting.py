"""What still fits an entry that proposals opened."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.commands import Envelope
from p2psched.model.limits import ENTRY_BYTES_WITH_PLACES_MAX

_encode: Final = msgspec.msgpack.Encoder().encode


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
