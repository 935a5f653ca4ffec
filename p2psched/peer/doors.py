"""Connections outlive a life as a follower: who gets what comes over them may change. Gossip goes
on, and gets its own at once."""

from __future__ import annotations

from collections.abc import Callable

from p2psched.model.errors import P2PSchedError
from p2psched.model.gossip_messages import Carried, Compare, Tell
from p2psched.model.messages import Call, PeerMessage
from p2psched.net.link import Connection, Handlers
from p2psched.peer.gossip import Gossip


class Doors:
    """`handlers` pass everything on to those in `to`."""

    def __init__(
        self,
        on_message: Callable[[Connection, PeerMessage | Call], None],
        on_opened: Callable[[Connection], None],
        on_closed: Callable[[Connection, P2PSchedError | None], None],
    ) -> None:
        self.gossip: Gossip | None = None
        self.to = Handlers(on_message=on_message, on_opened=on_opened, on_closed=on_closed)
        self.handlers = Handlers(
            on_message=self._on_message, on_opened=self._on_opened, on_closed=self._on_closed
        )

    def _on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        gossip = self.gossip
        if isinstance(message, Carried):
            if gossip is not None:
                gossip.on_carried(connection, message)
        elif isinstance(message, Call) and isinstance(message.body, Compare | Tell):
            if gossip is not None:
                gossip.on_call(connection, message.id, message.body)
        else:
            self.to.on_message(connection, message)

    def _on_opened(self, connection: Connection) -> None:
        if self.to.on_opened is not None:
            self.to.on_opened(connection)

    def _on_closed(self, connection: Connection, error: P2PSchedError | None) -> None:
        if self.gossip is not None:
            self.gossip.on_closed(connection)
        if self.to.on_closed is not None:
            self.to.on_closed(connection, error)
