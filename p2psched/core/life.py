"""What a peer tells the ledger of its own life, and what its callers want of the ledger: proposals
that are waited for. The same for who holds the ledger (`scheduler`) and who follows (`follower`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from p2psched.core.levels import NEEDS_LEVEL
from p2psched.core.proposals import Proposals
from p2psched.core.scheduler_events import Answered, AppendToLedger, RenewIncarnation
from p2psched.model.commands import (
    Acknowledged,
    Command,
    Envelope,
    KeptGrant,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Rejected,
)
from p2psched.model.needs import NOTHING, Offer, Offers


class Works(Protocol):
    """The owner of its tasks."""

    def kept(self) -> tuple[KeptGrant, ...]:
        """The grants that it still works on."""
        ...

    def may_leave(self, now_ms: int) -> bool: ...


class Life:
    """Of one process, over its incarnations. Whoever uses it empties `append` and sends that."""

    def __init__(
        self,
        info: PeerInfo,
        proposals: Proposals,
        works: Works,
        offers: Offers = NOTHING,
    ) -> None:
        self.info = info
        self.offers = offers
        self.offered: Offers | None = None  # what the ledger has acknowledged of it
        self._offer: int | None = None  # request
        self.leaving = False
        self.append: list[Envelope] = []
        self._proposals = proposals
        self._works = works
        self._tags: dict[int, int] = {}  # request -> tag of the caller
        self._requests: dict[int, int] = {}  # and back
        self._arrivals: set[int] = set()  # requests that tell the ledger of us
        self._farewell: int | None = None  # tag of a `Leaving` that waits until we are known
        self._is_renewing = False
        self._then: dict[int, Callable[[Outcome], None]] = {}

    # --- proposals ---

    def propose(self, command: Command, now_ms: int) -> int:
        """Its request."""
        envelope = self._proposals.propose(command, now_ms)
        self.append.append(envelope)
        return envelope.request

    def propose_for(self, command: Command, now_ms: int, then: Callable[[Outcome], None]) -> None:
        """`then` hears the outcome."""
        self._then[self.propose(command, now_ms)] = then

    def repeat(self, now_ms: int, *, all_of_them: bool = False) -> None:
        self.append += self._proposals.repeat(now_ms, all_of_them=all_of_them)

    def let_leave(self) -> list[AppendToLedger]:
        """What is to be appended now."""
        if not self.append:
            return []
        envelopes = tuple(self.append)
        self.append.clear()
        return [AppendToLedger(envelopes)]

    def ask(
        self, tag: int, command: Command, now_ms: int, refusal: Rejected | None
    ) -> list[Answered]:
        """For a caller, which is told at once if there is a `refusal`."""
        if refusal is not None:
            return [Answered(tag, refusal)]
        request = self.propose(command, now_ms)
        self._tags[request], self._requests[tag] = tag, request
        return []

    def give_up(self, tag: int) -> None:
        if tag == self._farewell:
            self._farewell = None
        request = self._requests.pop(tag, None)
        if request is not None:
            del self._tags[request]
            self._proposals.forget(request)

    def on_outcome(self, request: int, outcome: Outcome) -> list[Answered | RenewIncarnation]:
        """Of a proposal that was made here and is nobody else's."""
        if request in self._arrivals:
            self._arrivals.clear()
            # Rejected: the ledger knows a later life of ours.
            return [*self.renew()] if isinstance(outcome, Rejected) else []
        if request == self._offer:
            self._offer = None
            if isinstance(outcome, Acknowledged):
                self.offered = self.offers
            return []
        if request in self._then:
            self._then.pop(request)(outcome)
        tag = self._tags.pop(request, None)
        if tag is None:
            return []
        self._requests.pop(tag, None)
        return [Answered(tag, outcome)]

    # --- lives ---

    def begin(self, now_ms: int) -> None:
        self._come_up(now_ms)

    def renew(self) -> list[RenewIncarnation]:
        """The ledger has declared this incarnation down."""
        if self.leaving or self._is_renewing:
            return []
        self._is_renewing = True
        return [RenewIncarnation()]

    def renewed(self, incarnation: int, now_ms: int) -> None:
        self._is_renewing = False
        if not self.leaving:
            before = self.info.incarnation
            self.info = msgspec.structs.replace(self.info, incarnation=incarnation)
            self._come_up(now_ms, continues=before)

    def _come_up(self, now_ms: int, *, continues: int = 0) -> None:
        for request in self._arrivals:
            self._proposals.forget(request)
        self._arrivals = {self.propose(PeerUp(self.info, self._works.kept(), continues), now_ms)}

    def offer(self, now_ms: int, *, level: int, known: Offers | None) -> None:
        """Tell what this peer has beside slots, if that is not what is `known` of it. The ledger
        knows this incarnation, and is at this feature level."""
        if level >= NEEDS_LEVEL and known != self.offers and self._offer is None:
            told = Offer(self.info.peer, self.info.incarnation, self.offers)
            self._offer = self.propose(told, now_ms)

    @property
    def is_settled(self) -> bool:
        """Nothing of our own life is under way."""
        return not (self._arrivals or self._is_renewing)

    @property
    def arrives(self) -> bool:
        """The outcome of our `PeerUp` is still to come, and would say if we are down."""
        return bool(self._arrivals)

    def leave(self, tag: int) -> None:
        """Say so as soon as `say_farewell` may."""
        self.leaving, self._farewell = True, tag

    def say_farewell(self, now_ms: int, *, known: int, refusal: Rejected | None) -> list[Answered]:
        """`known`: the newest incarnation of ours in the ledger. Not before that is this one: a
        `PeerUp` of ours that came after our `PeerDown` would bring us back, and somebody would have
        to miss us."""
        if self._farewell is None or known < self.info.incarnation:
            return []
        if not self._works.may_leave(now_ms):
            return []
        tag, self._farewell = self._farewell, None
        down = PeerDown(self.info.peer, self.info.incarnation, "stopped", stopped=True)
        return self.ask(tag, down, now_ms, refusal)
