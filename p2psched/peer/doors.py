"""Connections outlive a life as a follower: who gets what comes over them may change."""

from __future__ import annotations

from collections.abc import Callable

from p2psched.model.errors import P2PSchedError
from p2psched.model.messages import Call, PeerMessage
from p2psched.net.link import Connection, Handlers


class Doors:
    """`handlers` pass everything on to those in `to`."""

    def __init__(
        self,
        on_message: Callable[[Connection, PeerMessage | Call], None],
        on_opened: Callable[[Connection], None],
        on_closed: Callable[[Connection, P2PSchedError | None], None],
    ) -> None:
        self.to = Handlers(on_message=on_message, on_opened=on_opened, on_closed=on_closed)
        self.handlers = Handlers(
            on_message=self._on_message, on_opened=self._on_opened, on_closed=self._on_closed
        )

    def _on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        self.to.on_message(connection, message)

    def _on_opened(self, connection: Connection) -> None:
        if self.to.on_opened is not None:
            self.to.on_opened(connection)

    def _on_closed(self, connection: Connection, error: P2PSchedError | None) -> None:
        if self.to.on_closed is not None:
            self.to.on_closed(connection, error)
