"""What the parts of gossip share: who we are, whom we know, what is to be told, and the effects of
the step that is under way."""

from __future__ import annotations

import random
from typing import Final

from p2psched.core.swim.awareness import Awareness
from p2psched.core.swim.events import Changed, Send, SwimEffect
from p2psched.core.swim.members import Member, Members
from p2psched.core.swim.news import News
from p2psched.core.swim.rumours import Rumours
from p2psched.core.swim.settings import Settings
from p2psched.model.gossip import (
    BODY_BYTES_MAX,
    SEQUENCE_MAX,
    Datagram,
    Item,
    Kind,
    Standing,
    size_of_item,
    size_of_standing,
)
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

HEAD_BYTES: Final = 52  # of a datagram's body at most: kind, sender, number, target, two lengths
WIRE_BYTES: Final = 64  # what a datagram costs that only carries news: head, seal, UDP and IP


class SwimState:
    def __init__(
        self, me: PeerId, life: int, address: str, *, deaf: bool, settings: Settings, seed: int
    ) -> None:
        self.me = Standing(me, life, 1, Liveness.ALIVE, address, deaf)
        self.settings = settings
        self.rng = random.Random(seed)
        self.members = Members()
        self.rumours = Rumours()
        self.news = News(settings)
        self.awareness = Awareness()
        self.out: list[SwimEffect] = []
        self.left = False
        self._sequence = self.rng.randrange(SEQUENCE_MAX)

    @property
    def group(self) -> int:
        """How many are alive or suspect, with us."""
        return self.members.present + 1

    def next_sequence(self) -> int:
        """Not used by anything that is under way: those are far fewer than there are numbers."""
        self._sequence = self._sequence % SEQUENCE_MAX + 1
        return self._sequence

    def changed(self, member: Member) -> None:
        self.out.append(Changed(member.peer, member.life, member.liveness, member.address))

    def send(
        self,
        now_ms: int,
        kind: Kind,
        to: PeerId,
        address: str,
        *,
        sequence: int = 0,
        target: PeerId | None = None,
        first: Standing | None = None,
    ) -> None:
        """With as many rumours and news as fit. Whom we don't hold for alive hears that first, so
        that it can refute it."""
        room = BODY_BYTES_MAX - HEAD_BYTES
        member = self.members.get(to)
        if first is None and member is not None and member.liveness is not Liveness.ALIVE:
            first = member.standing()
        said = self.rumours.take(room, self.settings.transmits(self.group), first)
        room -= sum(map(size_of_standing, said))
        news: list[Item] = []
        if self.news:
            limit = self.settings.news_transmits(self.group)
            news = self.news.take(now_ms, to, room, limit)
        if kind is Kind.GOSSIP and not said:
            if not news:
                return
            self.news.charge(WIRE_BYTES)
        datagram = Datagram(kind, self.me.peer, sequence, tuple(said), tuple(news), target)
        assert sum(map(size_of_item, news)) <= room
        self.out.append(Send(to, address, datagram))
