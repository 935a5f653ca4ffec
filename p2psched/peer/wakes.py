"""Who waits on this peer for a claim in the ledger to change: it alone is woken, and looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from p2psched.core.act_events import CLAIMS
from p2psched.model.commands import Stamped


class Wakes:
    """Belongs to the loop that applies. Waits are bounded by the calls that may be open."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    async def wait(self, claim: str) -> None:
        """Until something happens to it. Look first, and again then; the caller owns the
        deadline."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        self._waiting.setdefault(claim, []).append(wake)
        try:
            await future
        finally:
            self._leave(claim, wake)

    def _leave(self, claim: str, wake: Callable[[], None]) -> None:
        left = [other for other in self._waiting.get(claim, ()) if other is not wake]
        if left:
            self._waiting[claim] = left
        else:
            self._waiting.pop(claim, None)

    def on_events(self, events: Sequence[Stamped]) -> None:
        """These were applied."""
        for stamped in events if self._waiting else ():
            claims_of = CLAIMS.get(type(stamped.event))
            for claim in claims_of(stamped.event) if claims_of is not None else ():
                self._wake(claim)

    def on_restored(self) -> None:
        """Whatever happened meanwhile was missed."""
        for claim in list(self._waiting):
            self._wake(claim)

    def _wake(self, claim: str) -> None:
        for wake in tuple(self._waiting.get(claim, ())):
            wake()
