"""What a peer knows of the others from its ledger, or from its feed, and from its connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from p2psched.core.follower import Follower
from p2psched.core.state import LedgerState
from p2psched.model.ids import PeerId
from p2psched.model.raft import Membership
from p2psched.peer.whereabouts import Whereabouts

if TYPE_CHECKING:
    from p2psched.core.scheduler import Scheduler


class KnownPeers:
    """Implements `gossip.Around`."""

    def __init__(
        self,
        where: Whereabouts,
        state: LedgerState,
        *,
        incarnation: Callable[[], int],
        group: Callable[[], Membership],
    ) -> None:
        """`state`: all of the ledger, or the part that is fed."""
        self._where = where
        self._state = state
        self.incarnation = incarnation
        self._group = group

    @classmethod
    def of_ledger(
        cls, where: Whereabouts, scheduler: Scheduler, group: Callable[[], Membership]
    ) -> KnownPeers:
        return cls(
            where,
            scheduler.machine,
            incarnation=lambda: scheduler.info.incarnation,
            group=group,
        )

    @classmethod
    def of_feed(cls, where: Whereabouts, follower: Follower) -> KnownPeers:
        return cls(
            where,
            follower.machine,
            incarnation=lambda: follower.info.incarnation,
            group=lambda: follower.group,
        )

    def known(self) -> Iterator[tuple[PeerId, int, str]]:
        """Not those that the ledger holds for dead."""
        rows = self._state.peers
        for peer, row in rows.items():
            if row.live:
                yield peer, row.info.incarnation, row.info.address
        for peer, (_, address) in self._where.known.items():
            if peer not in rows:
                yield peer, 0, address

    def removed(self) -> tuple[PeerId, ...]:
        return self._group().removed
