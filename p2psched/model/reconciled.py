"""What a peer tells the others once it was cut off, is back, and all that it kept is decided."""

from __future__ import annotations

import msgspec

from p2psched.model.aside import Aside
from p2psched.model.ids import PeerId


class Reconciled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=59):
    """A peer was cut off, is back, and all that it kept has been decided."""

    peer: PeerId
    away_ms: int
    committed: int  # tasks
    discarded: int
    ended: int
    spooled: int  # jobs


class PeerReconciled(Aside, frozen=True, tag=95):
    """As the peer told it."""

    peer: PeerId
    away_ms: int
    committed: int
    discarded: int
    ended: int
    spooled: int
