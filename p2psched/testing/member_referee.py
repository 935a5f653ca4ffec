"""What must hold of changes of the membership (P12): a leader begins one only when an entry of its
own term is committed, and the last change is.
"""

from __future__ import annotations

from p2psched.model.ids import PeerId
from p2psched.model.raft import EntryKind, Membership
from p2psched.testing.promises import demand
from p2psched.testing.sim_peer import SimPeer


class MemberReferee:
    """Looks at leaders whose membership is another one than before."""

    def __init__(self) -> None:
        self._seen: dict[PeerId, tuple[int, Membership]] = {}  # process, its membership

    def look_at(self, peer: SimPeer) -> None:
        raft = peer.engine.raft
        now = peer.process, raft.membership
        before = self._seen.get(peer.id)
        if before is not None and before[0] == now[0] and before[1] is now[1]:
            return
        self._seen[peer.id] = now
        if before is None or before[0] != now[0] or not raft.is_leader:
            return
        entries = raft.entries(raft.commit + 1, raft.last_index + 1)
        changes = [entry for entry in entries if entry.kind is EntryKind.MEMBERSHIP]
        where = f"on peer {peer.number}, which leads term {raft.term}"
        demand(len(changes) <= 1, "P12", f"{len(changes)} changes of members at once {where}")
        if changes and changes[0].term == raft.term:
            demand(
                raft.term_at(raft.commit) == raft.term,
                "P12",
                f"a change of members before an entry of its term is committed {where}",
            )
