"""Which blobs a session has uploaded lately."""

from __future__ import annotations

import asyncio
from typing import Final

from p2psched.model.blob import BlobRef

SENT_S: Final = 240.0  # less than a peer keeps an upload pinned
SENT_KNOWN_MAX: Final = 4096


class Sent:
    """Blobs that were uploaded a little while ago: peers have them pinned, so the next job that
    names one needn't send it again."""

    def __init__(self) -> None:
        self._until: dict[BlobRef, float] = {}

    def knows(self, ref: BlobRef) -> bool:
        return self._until.get(ref, 0.0) > asyncio.get_running_loop().time()

    def note(self, ref: BlobRef) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._until) >= SENT_KNOWN_MAX:
            self._until = {r: until for r, until in self._until.items() if until > now}
        if len(self._until) < SENT_KNOWN_MAX:
            self._until[ref] = now + SENT_S

    def clear(self) -> None:
        self._until.clear()
