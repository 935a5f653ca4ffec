"""Gossip, whole: events in, effects out.

It decides nothing that must be safe: a peer that is dead here may live, and the ledger alone says
who is down (ADR 0049). It needs no clock but the times in its events, and no order of datagrams.
"""

from __future__ import annotations

from typing import Final, assert_never

from p2psched.core.swim.events import (
    Answered,
    Called,
    CallPeer,
    Gone,
    Heard,
    Leaving,
    NewsOf,
    Published,
    Received,
    Removed,
    Renewed,
    Reply,
    SwimEffect,
    SwimEvent,
    Ticked,
)
from p2psched.core.swim.exchange import Exchange
from p2psched.core.swim.members import PRESENT, Members, order
from p2psched.core.swim.opinion import Opinion
from p2psched.core.swim.probe import Circle
from p2psched.core.swim.prober import Prober
from p2psched.core.swim.settings import Settings
from p2psched.core.swim.state import SwimState
from p2psched.model.gossip import (
    NEWS_BYTES_MAX,
    TOPICS,
    Datagram,
    Item,
    Kind,
    Standing,
    decode_news,
    decode_standings,
)
from p2psched.model.gossip_messages import Compare, Compared, GossipCall, Tell, Told
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

STRANGERS_TOLD: Final = 35  # as many as a datagram has room for
PAUSE_MS_MIN: Final = 250  # of ours: less says nothing about what lies unread


class Swim:
    """One peer's view of who is there. `address`: where datagrams reach it; `deaf`: none do."""

    def __init__(
        self,
        me: PeerId,
        *,
        life: int,
        address: str,
        seed: int,
        now_ms: int,
        deaf: bool = False,
        settings: Settings | None = None,
    ) -> None:
        settings = settings if settings is not None else Settings()
        self._state = SwimState(me, life, address, deaf=deaf, settings=settings, seed=seed)
        self._circle = Circle(self._state.rng)
        self.opinion = Opinion(self._state, self._circle.add)
        self.prober = Prober(self._state, self.opinion, self._circle, now_ms)
        self._exchange = Exchange(lambda: self._state.me, self._state.members, self._state.news)
        self._asked: tuple[PeerId, tuple[PeerId, ...]] | None = None  # and whom our question was of
        self._exchange_ms = now_ms
        self._soon_ms = settings.soon_ms  # from a comparison that found something to the next
        self._checks = 0  # comparisons that must still find the same, after one that did not
        self._asked_last: PeerId | None = None
        self._gossiped_ms = now_ms - settings.gossip_ms
        self._looked_ms = now_ms  # when we last ran
        self._number = 0  # of our news
        self.opinion.announce()

    @property
    def members(self) -> Members:
        """Read only."""
        return self._state.members

    @property
    def life(self) -> int:
        return self._state.me.life

    @property
    def health(self) -> int:
        """0: this peer hears well; up to 8: it doubts itself."""
        return self._state.awareness.score

    @property
    def due_ms(self) -> int:
        """When it wants a `Ticked` at the latest."""
        due_ms = self.prober.due_ms
        if (suspicion_ms := self.opinion.due_ms) is not None:
            due_ms = min(due_ms, suspicion_ms)
        if self._asked is None and self._state.members.known:
            due_ms = min(due_ms, self._exchange_ms)
        return min(due_ms, self._gossip_ms())

    def step(self, event: SwimEvent) -> list[SwimEffect]:
        """`now_ms` of the events never goes back. Raises ValueError, and nothing has changed, if a
        call or an answer has bytes in it that no peer of ours would send."""
        state = self._state
        assert not state.out
        if state.left:
            return []
        life = state.me.life
        self._notice_pause(event.now_ms)
        self._dispatch(event)
        if state.me.life != life:
            self._say_again()
        effects, state.out = state.out, []
        return effects

    def _dispatch(self, event: SwimEvent) -> None:
        now_ms = event.now_ms
        match event:
            case Ticked():
                self._tick(now_ms)
            case Received():
                self._on_datagram(event)
            case Heard() | Gone() | Removed() | Renewed():
                self._on_ledger(event)
            case Published():
                self._publish(event.topic, event.data)
            case Called():
                self._on_call(now_ms, event.body)
            case Answered():
                self._on_answer(event)
            case Leaving():
                self._leave(now_ms)
            case _:
                assert_never(event)

    def _on_ledger(self, event: Heard | Gone | Removed | Renewed) -> None:
        match event:
            case Heard():
                said = Standing(event.peer, event.life, 0, Liveness.ALIVE, event.address)
                self.opinion.note(said, event.now_ms, fresh=event.fresh)
            case Gone():
                self.opinion.unsay(event.peer)
            case Removed():
                self.opinion.remove(event.peer)
            case Renewed():
                self.opinion.renew(event.life)
            case _:
                assert_never(event)

    # --- time -------------------------------------------------------------------------------------

    def _notice_pause(self, now_ms: int) -> None:
        """We were stopped, or starved: what we have not heard meanwhile says nothing of others, and
        the first to doubt is this peer."""
        pause_ms = now_ms - max(self.due_ms, self._looked_ms)
        self._looked_ms = now_ms
        if pause_ms > PAUSE_MS_MIN:
            self._state.awareness.add(1)
            self.prober.delay(pause_ms)
            self.opinion.delay(pause_ms)

    def _tick(self, now_ms: int) -> None:
        self.prober.tick(now_ms)
        self.opinion.expire(now_ms)
        self._exchange_with_some(now_ms)
        if now_ms >= self._gossip_ms():
            self._gossip(now_ms)

    def _gossip_ms(self) -> int:
        """When there is something to tell, and we may."""
        state = self._state
        if not state.members.present:
            return _NEVER_MS
        next_ms = self._gossiped_ms + state.settings.gossip_ms
        if state.rumours:
            return next_ms
        return max(next_ms, state.news.ready_ms) if state.news else _NEVER_MS

    def _gossip(self, now_ms: int) -> None:
        state = self._state
        self._gossiped_ms = now_ms
        for member in state.members.choose(state.rng, state.settings.fanout, *PRESENT):
            if state.rumours or state.news:
                state.send(now_ms, Kind.GOSSIP, member.peer, member.datagram_address)

    # --- datagrams --------------------------------------------------------------------------------

    def _on_datagram(self, event: Received) -> None:
        got = event.datagram
        if got.sender == self._state.me.peer:
            return
        self._learn(event.now_ms, got)
        match got.kind:
            case Kind.PING:
                self.prober.on_ping(event)
            case Kind.ASK:
                self.prober.on_ask(event)
            case Kind.ACK:
                risen = self.prober.on_ack(event)
                if risen is not None and self._asked is None:
                    self._compare_with(risen)
            case Kind.NACK:
                self.prober.on_nack(event)
            case Kind.GOSSIP:
                pass
            case _:
                assert_never(got.kind)

    def _learn(self, now_ms: int, got: Datagram) -> None:
        known = self._state.members.known
        for said in got.standings:
            member = known.get(said.peer)
            is_alive = member is not None and said.liveness is Liveness.ALIVE
            if is_alive and member is not None and order(said) <= member.order:
                continue  # most of what comes; nothing would come of it
            right = self.opinion.correction(said)
            if right is not None:
                self._correct(now_ms, got.sender, right)
            self.opinion.apply(said, now_ms)
        for item in got.news:
            self._learn_news(item, got.sender)

    def _correct(self, now_ms: int, to: PeerId, right: Standing) -> None:
        member = self._state.members.get(to)
        if member is not None:
            address = member.datagram_address
            self._state.send(now_ms, Kind.GOSSIP, to, address, first=right)

    def _learn_news(self, item: Item, via: PeerId, *, is_told: bool = True) -> None:
        """Of a peer that we know, and not of a life before."""
        state = self._state
        member = state.members.get(item.peer)
        if member is None or item.life < member.life:
            return
        if state.news.learn(item, via, is_told=is_told):
            state.out.append(NewsOf(item.peer, item.life, item.number, item.topic, item.data))

    def _publish(self, topic: int, data: bytes) -> None:
        assert len(data) <= NEWS_BYTES_MAX
        assert 0 <= topic < TOPICS
        self._number += 1
        me = self._state.me
        self._state.news.learn(Item(me.peer, me.life, self._number, topic, data), None)

    def _say_again(self) -> None:
        """What we said in a life before counts no more."""
        for item in self._state.news.of(self._state.me.peer):
            self._publish(item.topic, item.data)

    # --- comparing --------------------------------------------------------------------------------

    def _exchange_with_some(self, now_ms: int) -> None:
        state = self._state
        if self._asked is not None or now_ms < self._exchange_ms:
            return
        every_ms = state.settings.exchange_every_ms(state.group)
        # Who has just told us all it knows knows nothing more.
        but = () if self._asked_last is None or state.group <= 2 else (self._asked_last,)
        found = state.members.choose(state.rng, 1, *PRESENT, but=but)
        if not found:  # alone: those that are dead may be asked, too
            found = state.members.choose(state.rng, 1, Liveness.DEAD)
        self._exchange_ms = now_ms + (every_ms if found else state.settings.retry_ms)
        for member in found:
            self._compare_with(member.peer)

    def _compare_with(self, peer: PeerId) -> None:
        self._asked = (peer, self._exchange.present())
        self._asked_last = peer
        self._state.out.append(CallPeer(peer, self._exchange.question()))

    def _on_call(self, now_ms: int, body: GossipCall) -> None:
        if isinstance(body, Compare):
            for said in decode_standings(body.standing)[:1]:
                if said.peer == body.asker:
                    self.opinion.apply(said, now_ms)
            self._state.out.append(Reply(self._exchange.answer(body)))
        else:
            if self._take_up(now_ms, body.teller, body) > STRANGERS_TOLD:
                self._exchange_ms = min(self._exchange_ms, now_ms + self._state.settings.soon_ms)
            self._state.out.append(Reply(Told()))

    def _on_answer(self, event: Answered) -> None:
        now_ms, body, state = event.now_ms, event.body, self._state
        asked, self._asked = self._asked, None
        if body is None:
            self._exchange_ms = min(self._exchange_ms, now_ms + state.settings.retry_ms)
        elif isinstance(body, Compared) and asked is not None and asked[0] == event.peer:
            strangers = self._take_up(now_ms, event.peer, body)
            self._hurry(now_ms, equal=body.equal, strangers=strangers)
            rest = self._exchange.tell(body, asked[1])
            if rest is not None:
                self._asked = (event.peer, ())
                state.out.append(CallPeer(event.peer, rest))

    def _hurry(self, now_ms: int, *, equal: bool, strangers: int) -> None:
        """Who did not know the same compares again soon, each time less so unless it heard of peers
        that it did not know. Then it asks some more, for who answered may be as far behind: the
        more peers there are, the likelier it is that one of them finds only such."""
        settings, checks = self._state.settings, self._checks
        self._checks = max(0, checks - 1) if equal else settings.checks(self._state.group)
        if equal and not checks:
            return
        if equal or strangers:
            self._soon_ms = settings.soon_ms
        soon_ms = settings.soon_ms if equal else self._soon_ms
        self._exchange_ms = min(self._exchange_ms, now_ms + soon_ms)
        if not equal:
            self._soon_ms = min(2 * soon_ms, settings.exchange_every_ms(self._state.group))

    def _take_up(self, now_ms: int, via: PeerId, told: Compared | Tell) -> int:
        """How many it names that were not known here. Rumours of many would fill every peer's
        datagrams for long; comparisons carry all at once, and whoever learned many compares again.
        Few are told on, for others may not know them either."""
        standings, news = decode_standings(told.standings), decode_news(told.news)
        self._asked_last = via
        known = self._state.members.known
        strangers = {said.peer for said in standings if said.peer not in known}
        is_much = len(strangers) > STRANGERS_TOLD
        for said in standings:
            is_told = not (is_much and said.peer in strangers)
            self.opinion.apply(self._exchange.softened(said), now_ms, is_told=is_told)
        for item in news:
            self._learn_news(item, via, is_told=not (is_much and item.peer in strangers))
        return len(strangers)

    # --- the end ----------------------------------------------------------------------------------

    def _leave(self, now_ms: int) -> None:
        """To as many at once as a rumour is told by one peer; they pass it on."""
        state = self._state
        self.opinion.leave()
        count = state.settings.transmits(state.group)
        for member in state.members.choose(state.rng, count, *PRESENT):
            state.send(now_ms, Kind.GOSSIP, member.peer, member.datagram_address)
        state.left = True


_NEVER_MS: Final = 1 << 62
