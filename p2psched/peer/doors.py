"""Connections outlive a life of their peer: who gets what comes over them may change. Gossip goes
on, and gets its own at once."""

from __future__ import annotations

from typing import Final

from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.gossip_messages import Carried, Compare, Tell
from p2psched.model.messages import Call, Failure, PeerMessage
from p2psched.net.link import Connection, Handlers
from p2psched.peer.gossip import Gossip

STARTING_MS: Final = 200  # then a caller shall ask again

_Gossip = Compare | Tell


class Doors:
    """`handlers` pass everything on to those in `to`."""

    def __init__(self) -> None:
        self.gossip: Gossip | None = None
        self.to: Handlers | None = None  # there is no life yet, or just none
        self.handlers: Final = Handlers(
            on_message=self._on_message, on_opened=self._on_opened, on_closed=self._on_closed
        )

    def _on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        gossip = self.gossip
        if isinstance(message, Carried):
            if gossip is not None:
                gossip.on_carried(connection, message)
        elif isinstance(message, Call) and isinstance(message.body, _Gossip):
            if gossip is not None:
                gossip.on_call(connection, message.id, message.body)
        elif self.to is not None:
            self.to.on_message(connection, message)
        elif isinstance(message, Call):  # peers repeat, and callers are told to
            connection.send_nowait(starting(message))

    def _on_opened(self, connection: Connection) -> None:
        if self.to is not None and self.to.on_opened is not None:
            self.to.on_opened(connection)

    def _on_closed(self, connection: Connection, error: P2PSchedError | None) -> None:
        if self.gossip is not None:
            self.gossip.on_closed(connection)
        if self.to is not None and self.to.on_closed is not None:
            self.to.on_closed(connection, error)


def starting(call: Call) -> Failure:
    """The answer of a peer that has none yet."""
    return Failure(call.id, Unavailable.code, "this peer is starting", STARTING_MS)
