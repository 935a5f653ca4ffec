"""raftos, hardened, while members lose their power and are cut off, again and again: what one of
them has delivered stands at that place in the ledger for ever, on all of them."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from typing import Final

import pytest

from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from tests.engines.on_raftos import RaftosGroup
from tests.engines.rig import envelopes
from tests.engines.test_contract import needs_raftos

pytestmark = needs_raftos

ROUNDS: Final = 50
TURNS_MAX: Final = 60  # of the loop, in a round
DISTURBED: Final = 0.6  # of the rounds


class Storm:
    def __init__(self, group: RaftosGroup, rng: random.Random) -> None:
        self.group = group
        self._rng = rng
        self._numbers = count()
        self.ledger: list[Committed] = []  # all that any process was told

    def check(self) -> None:
        for listener in self.group.listeners.values():
            known = min(len(self.ledger), len(listener.batches))
            assert listener.batches[:known] == self.ledger[:known]
            self.ledger += listener.batches[known:]

    async def round(self) -> None:
        """Proposals to everybody, then something happens while they are under way."""
        group, rng = self.group, self._rng
        alive = [peer for peer in group.ids if peer not in group.dead]
        for peer in alive:
            group.append(peer, envelopes(next(self._numbers), 1, size=rng.choice((0, 500, 50_000))))
        turns = iter(range(rng.randrange(1, TURNS_MAX)))
        await group.until(lambda: next(turns, None) is None)
        self.check()
        if rng.random() < DISTURBED:
            await self._disturb(rng.choice(group.ids))

    async def _disturb(self, peer: PeerId) -> None:
        group, rng = self.group, self._rng
        if peer in group.dead:
            await group.start(peer)
        elif rng.random() < 0.4:
            group.cut ^= {peer}
        else:
            await group.kill(peer)

    async def heal(self) -> None:
        self.group.cut.clear()
        for peer in sorted(self.group.dead):
            await self.group.start(peer)
        await self.group.commit(next(self._numbers) + 1_000)
        self.check()


@pytest.mark.parametrize("seed", range(2))
def test_what_was_delivered_stands_through_lost_power_and_cuts(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        group = RaftosGroup(rng.choice((3, 4, 5)))
        storm = Storm(group, rng)
        await group.found()
        try:
            for _ in range(ROUNDS):
                await storm.round()
            await storm.heal()
        finally:
            await group.close()
        assert len(storm.ledger) > 1

    asyncio.run(main())
