"""How the peers of a cluster look to one of them: the answer to `ListPeers`."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.commands import PeerInfo
from p2psched.model.load import LoadReport

DRAINING: Final = "draining"
DRAINED: Final = "drained"
CORDONED: Final = "cordoned"


class PeerView(msgspec.Struct, frozen=True, array_like=True):
    info: PeerInfo
    role: str  # leader, voter, learner, removed
    state: str  # alive, suspect, dead
    owned: int  # tasks
    heard_ms: int | None  # since the leader heard it; None: not known here
    zone: str = ""
    # As it says itself; None: it doesn't answer. `lag`: entries that it has not applied yet.
    term: int | None = None
    applied: int | None = None
    lag: int | None = None
    drain: str = ""  # draining, drained, or nothing
    copies_left: int = 0  # of a draining one: large results that others lack still
    quarantine: str = ""  # why it gets nothing, or one task at a time, as who was asked sees it
    gossip: str = ""  # alive, suspect, dead or left as the peer that answers hears; empty: nothing
    # As the peer that answers has heard, and how long ago; None: nothing.
    load: LoadReport | None = None
    load_age_ms: int | None = None


class PeerList(msgspec.Struct, frozen=True, array_like=True, tag=9):
    peers: tuple[PeerView, ...]
