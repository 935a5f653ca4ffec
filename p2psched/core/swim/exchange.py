"""Two peers compare what they know, over their link: finds what rumours have missed, brings who is
new up to date, and heals a split.

Mostly they know the same, and a digest says so. Else the one that was asked tells all it has, and
the other one what was lacking there. A peer that the other one holds for dead is only suspected
here: if it lives it says so before anybody takes its work away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from p2psched.core.swim.members import PRESENT, Members, order
from p2psched.core.swim.news import News
from p2psched.core.swim.settings import EXCHANGE_BYTES_MAX
from p2psched.model.gossip import (
    Item,
    Standing,
    accuser,
    decode_news,
    decode_standings,
    encode_news,
    encode_standings,
    size_of_item,
    size_of_standing,
)
from p2psched.model.gossip_messages import Compare, Compared, Tell
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

T = TypeVar("T")


class Exchange:
    """Reads only. `me` is what we say of ourselves now."""

    def __init__(self, me: Callable[[], Standing], members: Members, news: News) -> None:
        self._me = me
        self._members = members
        self._news = news

    def question(self) -> Compare:
        me = self._me()
        numbers = tuple(self._news.number(peer, life) for peer, life in self._present())
        return Compare(me.peer, encode_standings([me]), self._members.digest(me), numbers)

    def answer(self, asked: Compare) -> Compared:
        """After the asker's own standing was taken up."""
        me, present = self._me(), self._present()
        if asked.digest != self._members.digest(me) or len(asked.numbers) != len(present):
            return Compared(False, self._standings(), encode_news(_fitting_news(self._news.all())))
        found: list[Item] = []
        wants: list[int] = []
        for place, (peer, life) in enumerate(present):
            ours, theirs = self._news.number(peer, life), asked.numbers[place]
            if ours > theirs:
                found.extend(self._news.of(peer))
            elif ours < theirs:
                wants.append(place)
        return Compared(True, b"\x90", encode_news(_fitting_news(found)), tuple(wants))

    def tell(self, answer: Compared, before: Sequence[PeerId]) -> Tell | None:
        """What the other one lacks; `before`: whom our question was of. Call it after what the
        answer has was taken up."""
        me = self._me()
        if answer.equal:
            wanted = [before[place] for place in answer.wants if 0 <= place < len(before)]
            items = [item for peer in wanted for item in self._news.of(peer)]
            return Tell(me.peer, b"\x90", encode_news(_fitting_news(items))) if items else None
        theirs = {said.peer: order(said) for said in decode_standings(answer.standings)}
        never = (-1, -1, -1)
        said = [s for s in self._all() if order(s) > theirs.get(s.peer, never)]
        known = {
            (item.peer, item.topic): (item.life, item.number) for item in decode_news(answer.news)
        }
        items = [
            item
            for item in self._news.all()
            if (item.life, item.number) > known.get((item.peer, item.topic), never[:2])
        ]
        if not said and not items:
            return None
        standings = encode_standings(_fitting(said, size_of_standing))
        return Tell(me.peer, standings, encode_news(_fitting_news(items)))

    def present(self) -> tuple[PeerId, ...]:
        """In the order of `Compare.numbers`."""
        return tuple(peer for peer, _ in self._present())

    def softened(self, said: Standing) -> Standing:
        """What another one told of somebody, as we take it."""
        member = self._members.get(said.peer)
        lives_here = member is not None and member.is_present
        if said.liveness is Liveness.DEAD and lives_here:
            by = accuser(self._me().peer)
            return msgspec.structs.replace(said, liveness=Liveness.SUSPECT, accuser=by)
        return said

    def _present(self) -> list[tuple[PeerId, int]]:
        """With the lives that they are in."""
        me = self._me()
        others = ((member.peer, member.life) for member in self._members.of(*PRESENT))
        return sorted([(me.peer, me.life), *others])

    def _all(self) -> Iterator[Standing]:
        yield self._me()
        for _, member in sorted(self._members.known.items()):
            yield member.standing()

    def _standings(self) -> bytes:
        return encode_standings(_fitting(self._all(), size_of_standing))


def _fitting(values: Iterable[T], size: Callable[[T], int]) -> list[T]:
    """As many as one answer holds. All standings do; of news, others come as they are told."""
    room = EXCHANGE_BYTES_MAX
    found: list[T] = []
    for value in values:
        room -= size(value)
        if room < 0:
            break
        found.append(value)
    return found


def _fitting_news(items: Iterable[Item]) -> list[Item]:
    return _fitting(items, size_of_item)
