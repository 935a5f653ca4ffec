"""Whom a peer with nothing to do asks for tasks, and when: a pure rule over a view that may be old
or wrong (two random choices: Mitzenmacher 2001).

One request at a time. Who was asked in vain is left alone for as long as it says, and after each
failure the thief waits twice as long, up to a second; news of work wakes it once. In a large group
all of that takes longer, by as much as there are more thieves for each victim: what is asked of one
busy peer in a second does not grow with the group. Where tasks only fail the thief asks for one at
a time, ever more seldom, until one succeeds: it shall not eat what others could run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from p2psched.core.spare import WHOLE, spare
from p2psched.core.state import LedgerState
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, Seen
from p2psched.model.steal_messages import Gives

WAIT_US_MIN: Final = 15_000  # expected wait of a queue's end that is worth a question
LONG_US: Final = 500_000  # of a peer whose tasks may need many slots each: see `by_rows`
CHOICES: Final = 2
PAUSE_MS_MIN: Final = 10
PAUSE_MS_MAX: Final = 1_000
IDLE_MS: Final = 200  # after that it asks whoever has a queue: tasks may take longer than expected
ANSWER_MS: Final = 500  # a request that has no answer by then is lost
GRANT_MS: Final = 2_000  # likewise tasks that were said to come
ROUND_TRIPS_MAX: Final = 1_024
CROWD: Final = 50  # peers for each that has something to give, before pauses are longer
SPREAD_MS: Final = 100  # so much longer the first question waits, at most
FAILED_MIN: Final = 4  # tasks that failed here since one succeeded, before it is careful
CAREFUL_MS: Final = 1_000  # its first pause then
CAREFUL_MS_MAX: Final = 60_000


class Busy(NamedTuple):
    """A peer that may have something to give."""

    peer: PeerId
    wait_us: int  # expected, until what it has is begun


def by_rows(
    state: LedgerState, me: PeerId, seen: Mapping[PeerId, Seen], *, asks_all: bool = False
) -> list[Busy]:
    """What a holder of the ledger knows of the others."""
    found: list[Busy] = []
    for peer, row in state.peers.items():
        slots = row.info.slots
        if peer == me or not row.live or slots < 1 or row.owned < 2:
            continue
        known = seen.get(peer)
        wait_us = row.load_us // slots
        if known is not None:
            wait_us = wait_us * WHOLE // spare(known.load, slots)
        if asks_all and row.owned > slots:
            wait_us = max(wait_us, WAIT_US_MIN)
        # How many slots its tasks take is not known here: two may wait for each other.
        if wait_us < (WAIT_US_MIN if row.owned > slots else LONG_US):
            continue
        if known is None or known.liveness is Liveness.ALIVE:
            found.append(Busy(peer, wait_us))
    return found


def by_gossip(me: PeerId, seen: Mapping[PeerId, Seen], *, asks_all: bool = False) -> list[Busy]:
    """What anybody knows."""
    found: list[Busy] = []
    for peer, known in seen.items():
        load = known.load
        if load is None or peer == me or known.liveness is not Liveness.ALIVE:
            continue
        wait_us = load.queue_us // max(1, load.slots)
        if load.queue > 0 and (asks_all or wait_us >= WAIT_US_MIN):
            found.append(Busy(peer, max(wait_us, WAIT_US_MIN)))
    return found


class Thief:
    """Of one process."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = 0
        self._asked: tuple[PeerId, int] | None = None  # who, and when
        self._due_ms: int | None = None  # when what was asked, or promised, has failed
        self._again_ms = 0
        self._failures = 0  # in a row
        self._crowd = 1  # how much longer all pauses are
        self._is_spread = False  # it has waited for its turn among many
        self._failed = 0  # tasks, since one succeeded here
        self._rested_ms = 0  # what it has is expected to be done by then
        self._careful_ms = 0  # the pause that it makes because of that
        self._not_before: dict[PeerId, int] = {}  # who was asked in vain
        self.requests = 0
        self.successes = 0
        self.round_trips_ms: deque[int] = deque(maxlen=ROUND_TRIPS_MAX)  # until tasks were granted

    def may_ask(self, now_ms: int) -> bool:
        """Cheap: before a view is made."""
        if self._due_ms is None:
            return now_ms >= self._again_ms and now_ms >= self._rested_ms
        if now_ms >= self._due_ms:
            self._fail(now_ms)
        return False

    @property
    def most(self) -> int:
        """How many tasks it asks for; 0: as many as it is given."""
        return 1 if self._failed >= FAILED_MIN else 0

    def on_ended(self, now_ms: int, *, failed: int, succeeded: int) -> None:
        """Tasks ended here, and through this peer, for all that it knows."""
        if succeeded:
            self._failed = self._careful_ms = 0
        elif failed:
            self._failed += failed
            if self._failed >= FAILED_MIN:
                self._careful_ms = min(max(CAREFUL_MS, 2 * self._careful_ms), CAREFUL_MS_MAX)
                self._again_ms = max(self._again_ms, now_ms + self._careful_ms)

    def ask(
        self, now_ms: int, victims: Sequence[Busy], *, group: int = 1
    ) -> tuple[PeerId, int] | None:
        """Whom, and the number of the request. `group`: how many peers there are."""
        self._not_before = {p: until for p, until in self._not_before.items() if until > now_ms}
        open_ones = [victim for victim in victims if victim.peer not in self._not_before]
        if not open_ones:
            self._again_ms = now_ms + PAUSE_MS_MIN
            return None
        self._crowd = max(1, group // (CROWD * len(victims)))
        if self._crowd > 1 and not self._is_spread:  # all others see the same, and are as idle
            self._is_spread = True
            self._again_ms = now_ms + self._rng.randrange(self._crowd * SPREAD_MS)
            return None
        most_us = max(victim.wait_us for victim in open_ones)
        worth = [victim for victim in open_ones if victim.wait_us * 2 >= most_us]
        chosen = self._rng.sample(worth, min(CHOICES, len(worth)))
        peer = max(chosen, key=lambda victim: victim.wait_us).peer
        self._number += 1
        self.requests += 1
        self._asked, self._due_ms = (peer, now_ms), now_ms + ANSWER_MS
        return peer, self._number

    def on_gives(self, now_ms: int, sender: PeerId, gives: Gives) -> None:
        if self._asked is None or self._asked[0] != sender or gives.number != self._number:
            return  # of before
        if gives.count > 0:
            self._due_ms = now_ms + GRANT_MS
        else:
            again_ms = max(0, min(gives.again_ms, PAUSE_MS_MAX))
            self._not_before[sender] = now_ms + again_ms
            self._fail(now_ms)

    def on_granted(self, now_ms: int) -> None:
        """This peer has tasks again."""
        if self._asked is not None:
            self.round_trips_ms.append(now_ms - self._asked[1])
            self.successes += 1
        self._asked = self._due_ms = None
        self._failures, self._again_ms = 0, max(now_ms, self._again_ms if self._careful_ms else 0)
        self._is_spread = False

    def rest(self, now_ms: int, rest_ms: int) -> None:
        """Ask for nothing for so long, whatever is heard."""
        self._rested_ms = max(self._rested_ms, now_ms + rest_ms)

    def on_news(self, now_ms: int) -> None:
        """Somebody else has got tasks."""
        if self._careful_ms or self._crowd > 1:
            return
        due_ms = now_ms + (PAUSE_MS_MIN if self._failures else 0)
        self._again_ms = min(self._again_ms, due_ms)

    def _fail(self, now_ms: int) -> None:
        self._asked = self._due_ms = None
        longest_ms = min(PAUSE_MS_MIN << min(self._failures, 10), PAUSE_MS_MAX) * self._crowd
        self._failures += 1
        pause_ms = max(self._rng.randint(longest_ms // 2, longest_ms), self._careful_ms)
        self._again_ms = now_ms + pause_ms
