"""What a peer's loops ask of its links: calls to other peers."""

from __future__ import annotations

from typing import Protocol

from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody


class Others(Protocol):
    """Calls to other peers."""

    def connected(self) -> frozenset[PeerId]: ...

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody: ...
