"""Planted bugs about logs that were damaged."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core.raft import regain
from p2psched.core.raft.state import RaftState
from p2psched.model.ids import PeerId
from p2psched.model.raft import RaftMessage, ReadAsk, ReadReply
from tests.scenarios.planted import Bug
from tests.sim.mutants import Planted


def _tells_the_commit() -> Planted:
    """Who asks how far its log must reach is told what is committed by then."""
    on_ask = regain.on_ask

    def hasty(s: RaftState, sender: PeerId, ask: ReadAsk) -> None:
        send = s.send

        def told(to: PeerId, message: RaftMessage) -> None:
            if isinstance(message, ReadReply):
                message = msgspec.structs.replace(message, index=s.commit)
            send(to, message)

        with patch.object(s, "send", told):
            on_ask(s, sender, ask)

    return patch.object(regain, "on_ask", hasty)


DAMAGE_BUGS: Final = (
    Bug(
        "raft_regained_up_to_the_commit",
        "the commit index is taken for the end",
        _tells_the_commit,
        "!! c leads without the committed entry 4@2",
    ),
)
