"""What must hold of changes of the membership (P12): a leader begins one only when an entry of its
own term is committed, and the last change is; each changes one voter at most; who was removed is
no member again, and leads no longer than until that is committed.
"""

from __future__ import annotations

from collections import Counter

from p2psched.core.raft.state import decode_membership
from p2psched.model.commands import Command, ForgetPeer
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, Membership
from p2psched.testing.promises import demand
from p2psched.testing.sim_peer import SimPeer


class MemberReferee:
    """Looks at leaders whose membership is another one than before, and at what is committed."""

    def __init__(self) -> None:
        self.newest = Membership()  # that is committed
        self._newest_index = 0
        self.begins_at = 0  # the entry that begins another cluster, with one member
        self.gone: dict[PeerId, None] = {}  # were members once
        self.changes: Counter[str] = Counter()  # that are committed

    def look_at(self, peer: SimPeer) -> None:
        """At one with a membership that it did not have when this was looked at last."""
        raft = peer.engine.raft
        is_new, peer.membership_seen = peer.membership_seen is None, raft.membership
        if is_new or not raft.is_leader:
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

    def on_committed(self, entry: Entry) -> None:
        """For the first time."""
        before, self.newest = self.newest, decode_membership(entry)
        self._newest_index = entry.index
        voted, vote = _voters(before), _voters(self.newest)
        begins = not voted or entry.index == self.begins_at
        demand(
            begins or len(voted ^ vote) <= 1,
            "P12",
            f"entry {entry.index} changes several voters at once",
        )
        self.changes["voters made"] += len(vote - voted)
        self.changes["voters demoted"] += len((voted - vote) & set(_members(self.newest)))
        members, now = _members(before), _members(self.newest)
        self.gone |= dict.fromkeys(peer for peer in members if peer not in now)
        back = [peer for peer in now if peer in self.gone]
        demand(not back, "P12", f"entry {entry.index} makes {back} members again")

    def on_command(self, command: Command) -> None:
        """One that is committed."""
        match command:
            case ForgetPeer(peer=peer):
                demand(peer in self.gone, "P13", f"{peer} is forgotten, and was never removed")
            case _:
                pass

    def on_commit(self, peer: SimPeer) -> None:
        """A peer has learned that more is committed."""
        raft = peer.engine.raft
        demand(
            not raft.is_leader
            or raft.membership.is_voter(peer.id)
            or raft.commit < self._newest_index  # those who are left have committed it
            or raft.membership != self.newest,
            "P12",
            f"peer {peer.number} leads term {raft.term}, and its removal is committed",
        )


def _voters(membership: Membership) -> set[PeerId]:
    return {member.peer for member in membership.voters}


def _members(membership: Membership) -> list[PeerId]:
    return [member.peer for member in (*membership.voters, *membership.learners)]
