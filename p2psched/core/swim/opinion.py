"""What this peer thinks of the others, and what it answers to what is said of itself.

Who does not answer is suspected first and has time to refute; only who lets that pass is dead. Each
peer raises its own number and nobody else does, so what it says of itself counts before what others
say of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.core.swim.events import Changed
from p2psched.core.swim.members import order
from p2psched.core.swim.state import SwimState
from p2psched.core.swim.suspicion import Suspicion
from p2psched.model.gossip import Standing, accuser
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

CONFIRMATIONS: Final = 2  # others that make a suspicion as short as it gets: memberlist's


class Opinion:
    def __init__(self, state: SwimState, on_alive: Callable[[PeerId], None]) -> None:
        """`on_alive`: a peer is there, that was not before."""
        self._state = state
        self._on_alive = on_alive
        self._suspicions: dict[PeerId, Suspicion] = {}
        self._removed: dict[PeerId, None] = {}  # for good
        self.refuted = 0  # what was said of us and not true
        self.suspected = 0  # suspicions that began here, whoever had them first
        self.deaths = 0

    @property
    def due_ms(self) -> int | None:
        return min((s.due_ms for s in self._suspicions.values()), default=None)

    def apply(self, said: Standing, now_ms: int, *, is_told: bool = True) -> None:
        """Somebody says it, or we found out. `is_told`: others shall hear it from us."""
        state = self._state
        if said.peer == state.me.peer:
            self._on_self(said)
            return
        if said.peer in self._removed:
            return
        if self._accept(said, now_ms):
            if is_told:
                state.rumours.add(said)
        elif said.liveness is Liveness.SUSPECT:
            self._confirm(said)

    def correction(self, said: Standing) -> Standing | None:
        """What to answer to whoever doubts a peer as of before it has refuted that. Others would
        not: an old rumour is no news to them."""
        if said.liveness is Liveness.ALIVE:
            return None
        state = self._state
        member = state.members.get(said.peer)
        known = member.standing() if member is not None else None
        if said.peer == state.me.peer:
            known = state.me
        if known is None or known.liveness is not Liveness.ALIVE or order(known) <= order(said):
            return None
        return known

    def note(self, said: Standing, now_ms: int, *, fresh: bool) -> None:
        """What we know from elsewhere of a peer that is alive: no rumour, others know it, too."""
        state = self._state
        if said.peer == state.me.peer or said.peer in self._removed:
            return
        member = state.members.get(said.peer)
        if self._accept(said, now_ms) or not fresh or member is None:
            return
        if member.address != said.address:
            member.address = said.address
            state.changed(member)

    def suspect(self, peer: PeerId, now_ms: int) -> None:
        """It did not answer us, nor anybody whom we asked."""
        member = self._state.members.get(peer)
        if member is None or not member.is_present or not member.number:
            return  # who has never said anything here may be of a version that does not gossip
        by = accuser(self._state.me.peer)
        said = msgspec.structs.replace(member.standing(by), liveness=Liveness.SUSPECT, address="")
        self.apply(said, now_ms)

    def expire(self, now_ms: int) -> None:
        """Who has not refuted in time is dead; who has been for long is forgotten."""
        state = self._state
        for peer, suspicion in list(self._suspicions.items()):
            if suspicion.due_ms <= now_ms:
                member = state.members.get(peer)
                assert member is not None
                assert member.liveness is Liveness.SUSPECT
                self.apply(
                    msgspec.structs.replace(member.standing(), liveness=Liveness.DEAD), now_ms
                )
        old_ms = now_ms - state.settings.forget_ms
        gone = [m for m in state.members.of(Liveness.DEAD, Liveness.LEFT) if m.since_ms <= old_ms]
        for member in gone:
            self._forget(member.peer)

    def unsay(self, peer: PeerId) -> None:
        """What we knew of it from elsewhere."""
        member = self._state.members.get(peer)
        if member is not None and not member.number:
            self._forget(peer)

    def remove(self, peer: PeerId) -> None:
        if peer == self._state.me.peer or peer in self._removed:
            return
        self._removed[peer] = None
        if self._state.members.get(peer) is not None:
            self._forget(peer)

    def delay(self, pause_ms: int) -> None:
        """We were not there for so long."""
        for suspicion in self._suspicions.values():
            suspicion.delay(pause_ms)

    def renew(self, life: int) -> None:
        """What was said of our life before counts no more."""
        if life > self._state.me.life:
            self._say_of_self(life, 1)

    def leave(self) -> None:
        self._say_of_self(self._state.me.life, self._state.me.number, Liveness.LEFT)

    def announce(self) -> None:
        self._state.rumours.add(self._state.me)

    def _accept(self, said: Standing, now_ms: int) -> bool:
        state = self._state
        before = state.members.get(said.peer)
        was_present = before is not None and before.is_present
        if not state.members.accept(said, now_ms):
            return False
        member = state.members.known[said.peer]
        self._suspicions.pop(said.peer, None)
        match said.liveness:
            case Liveness.SUSPECT:
                self.suspected += 1
                self._suspicions[said.peer] = self._suspicion(said.accuser, now_ms)
            case Liveness.DEAD:
                self.deaths += 1
            case Liveness.ALIVE | Liveness.LEFT:
                pass
        if member.is_present and not was_present:
            self._on_alive(said.peer)
        state.changed(member)
        return True

    def _on_self(self, said: Standing) -> None:
        """An untruth, or news of ours that come back."""
        state = self._state
        if state.left or order(said) <= order(state.me):
            return
        self.refuted += 1
        state.awareness.add(1)
        # A life that we don't know of yet is ours all the same: nobody else has our identity.
        self._say_of_self(said.life, said.number + 1)

    def _say_of_self(self, life: int, number: int, liveness: Liveness = Liveness.ALIVE) -> None:
        state = self._state
        me = msgspec.structs.replace(state.me, life=life, number=number, liveness=liveness)
        assert order(me) > order(state.me)
        state.me = me
        state.rumours.add(me)

    def _confirm(self, said: Standing) -> None:
        member, suspicion = self._state.members.get(said.peer), self._suspicions.get(said.peer)
        if member is None or suspicion is None or order(said) != member.order:
            return
        if suspicion.confirm(said.accuser):
            self._state.rumours.add(said)

    def _suspicion(self, by: bytes, now_ms: int) -> Suspicion:
        shortest_ms, longest_ms = self._state.settings.suspicion_ms(self._state.group)
        # In a small group there is nobody who could confirm.
        wanted = CONFIRMATIONS if self._state.group - 2 >= CONFIRMATIONS else 0
        return Suspicion(by, now_ms, shortest_ms=shortest_ms, longest_ms=longest_ms, wanted=wanted)

    def _forget(self, peer: PeerId) -> None:
        state = self._state
        member = state.members.remove(peer)
        assert member is not None
        self._suspicions.pop(peer, None)
        state.rumours.forget(peer)
        state.news.forget(peer)
        state.out.append(Changed(peer, member.life, None, member.address))
