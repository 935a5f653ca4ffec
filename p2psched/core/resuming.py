"""From which checkpoint a task goes on: decided by its owner, from what the other peers say.

The ledger knows nothing of checkpoints, so it does not grow with them. Before an attempt the owner
asks those that are there. Once all of them have answered, or FIND_MS are over, it takes the newest
that is whole, its own rather than another's. If nobody has one, and the task may have run before,
it keeps asking who is away until PATIENCE_MS are over: after all peers were killed the old owner
may come up a little later. Then it starts without, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from p2psched.model.checkpoints import Head
from p2psched.model.execution import Unbegun
from p2psched.model.ids import PeerId

FIND_MS: Final = 2_000  # for those that the ledger holds alive
PATIENCE_MS: Final = 15_000  # for the others, and only if nobody has one
TURN_MS: Final = 50  # whose turn it is not asks again after it
ASK_AGAIN_MS: Final = 500


class Ask(msgspec.Struct, frozen=True):
    peers: tuple[PeerId, ...]


class Take(msgspec.Struct, frozen=True):
    """Have it here, whole, or say `on_bad`."""

    head: Head
    peer: PeerId


class Wait(msgspec.Struct, frozen=True):
    until_ms: int  # or an answer


class Without(msgspec.Struct, frozen=True):
    """`unheard` may have one; `damaged` had one that is of no use."""

    unheard: tuple[PeerId, ...] = ()
    damaged: tuple[PeerId, ...] = ()


class Search:
    """Of one attempt. `next` says what to do until it says Take, and then again if that fails."""

    def __init__(
        self,
        me: PeerId,
        own: Sequence[Head],
        *,
        live: Iterable[PeerId],
        away: Iterable[PeerId],
        has_run: bool,
        now_ms: int,
    ) -> None:
        """`live` and `away`: the others, as the ledger has them."""
        self._me = me
        self._began_ms = now_ms
        self._has_run = has_run
        self._live = frozenset(live) - {me}
        self._others = self._live | (frozenset(away) - {me})
        self._found: dict[PeerId, tuple[Head, ...]] = {me: tuple(own)}
        self._bad: set[tuple[PeerId, tuple[int, int]]] = set()
        self._to_ask = self._others if has_run else self._live
        self._asked_ms = now_ms

    def on_heads(self, peer: PeerId, heads: Iterable[Head]) -> None:
        self._found[peer] = tuple(heads)

    def on_bad(self, head: Head, peer: PeerId, *, damaged: bool) -> None:
        """It could not be had from there. What is damaged is damaged for ever; who broke off is
        asked again."""
        if damaged:
            self._bad.add((peer, head.key))
        else:
            self._found.pop(peer, None)
            self._live = self._live - {peer}

    @property
    def unheard(self) -> frozenset[PeerId]:
        return self._others - self._found.keys()

    def next(self, now_ms: int) -> Ask | Take | Wait | Without:
        if self._to_ask:
            asked, self._to_ask, self._asked_ms = self._to_ask, frozenset(), now_ms
            return Ask(tuple(sorted(asked)))
        if self._live & self.unheard and now_ms < self._began_ms + FIND_MS:
            return Wait(self._began_ms + FIND_MS)
        best = self._best()
        if best is not None:
            return best
        end_ms = self._began_ms + PATIENCE_MS
        if self.unheard and self._has_run and now_ms < end_ms:
            if now_ms >= self._asked_ms + ASK_AGAIN_MS:
                self._to_ask = self.unheard
                return self.next(now_ms)
            return Wait(min(end_ms, self._asked_ms + ASK_AGAIN_MS))
        return Without(tuple(sorted(self.unheard)), tuple(sorted({peer for peer, _ in self._bad})))

    def _best(self) -> Take | None:
        best: Take | None = None
        for peer in sorted(self._found, key=lambda peer: (peer != self._me, peer)):
            for head in self._found[peer]:
                is_newer = best is None or head.key > best.head.key
                if is_newer and (peer, head.key) not in self._bad:
                    best = Take(head, peer)
        return best


def seeks(batch: int) -> Unbegun:
    """What an executor says of a batch whose task looks for its checkpoint."""
    return Unbegun(batch, "a task looks for its checkpoint", "it looks for its newest checkpoint")


class Budget:
    """Bytes that may go to copies: so many a minute, saved up for a minute at most. What is larger
    than that goes all the same, and then nothing until it is paid for.

    Tasks that find nothing left stand in line, so that none which saves often leaves nothing for
    the others. Who stands there comes again in time, or leaves it."""

    def __init__(self, bytes_per_minute: int, now_ms: int) -> None:
        self._rate = bytes_per_minute
        self._left = float(bytes_per_minute)
        self._at_ms = now_ms
        self._line: dict[int, None] = {}

    def wait_ms(self, now_ms: int, who: int = 0) -> int | None:
        """Until `who` may ask again; 0: the next copy is its own, now; None: never."""
        self._fill(now_ms)
        if not self._rate and self._left <= 0:
            return None
        if self._left > 0 and next(iter(self._line), who) == who:
            self._line.pop(who, None)
            return 0
        self._line[who] = None
        return TURN_MS if self._left > 0 else 1 + int(-self._left * 60_000 / self._rate)

    def leave(self, who: int) -> None:
        self._line.pop(who, None)

    def spend(self, size: int, now_ms: int) -> None:
        self._fill(now_ms)
        self._left -= size

    def _fill(self, now_ms: int) -> None:
        gained = (now_ms - self._at_ms) * self._rate / 60_000
        self._left, self._at_ms = min(float(self._rate), self._left + gained), now_ms
