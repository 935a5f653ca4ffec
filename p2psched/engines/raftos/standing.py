"""What others may look at of a member, as of the embedded engine's `Raft`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.core.raft.timing import Timing
from p2psched.engines.raftos.roles import Leader
from p2psched.model.ids import PeerId
from p2psched.model.raft import Member, Membership, Snapshot

if TYPE_CHECKING:
    from p2psched.engines.raftos.ledger import RaftosLedger


class Standing:
    is_regaining: Final = False
    snapshot: Final[Snapshot | None] = None
    base_index: Final = 0
    leader_heartbeat_ms: Final = 0

    def __init__(self, ledger: RaftosLedger, timing: Timing) -> None:
        self._ledger = ledger
        self.timing: Final = timing

    @property
    def is_leader(self) -> bool:
        return isinstance(self._ledger.member.state, Leader)

    @property
    def term(self) -> int:
        return self._ledger.member.log.hard.term

    @property
    def leader(self) -> PeerId | None:
        return self._ledger.coordinator()

    @property
    def commit(self) -> int:
        return self._ledger.member.log.commit

    @property
    def last_index(self) -> int:
        return self._ledger.member.log.last_index

    @property
    def membership(self) -> Membership:
        return self._ledger.membership()

    def leader_is_live(self) -> bool:
        return self.leader is not None

    def knows_removed(self, peer: PeerId) -> bool:
        del peer
        return False  # nobody ever is

    def is_settled_member(self, member: Member) -> bool:
        return self.membership.member(member.peer) == member


class Core:
    """Where the embedded engine has its `Raft`."""

    def __init__(self, raft: Standing) -> None:
        self.raft: Final = raft
