"""Who stands beside a connection: who counts it, and who takes its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.messages import Answer, Failure
from p2psched.net.auth import Identity
from p2psched.net.turns import Turns

if TYPE_CHECKING:
    from p2psched.net.link import Connection


class AnswerSink(Protocol):
    """Who takes the answers to the calls of this side: see `net.calls`."""

    def on_answer(self, message: Answer | Failure) -> None: ...

    def on_closed(self, error: P2PSchedError | None) -> None: ...


class Gate(Protocol):
    """Who counts connections: the server."""

    @property
    def turns(self) -> Turns: ...

    def on_made(self, connection: Connection) -> None: ...

    def admit(self, connection: Connection, remote: Identity) -> Unavailable | None:
        """An error if there is no room for one that has just proved the secret."""
        ...

    def on_lost(self, connection: Connection) -> None: ...
