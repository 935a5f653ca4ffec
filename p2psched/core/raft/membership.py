"""Who votes: changes of one member at a time, in the log (section 4.1).

Refused until the leader has committed in its own term and the last change is committed. A peer is
a learner first. One voter until three peers can vote, then three; further peers stay learners, and
so do members that don't want to vote.

Whoever is removed is told of it along with the commit of that, and of nothing more; its identity
doesn't become a member again. A leader that removes itself counts the others' disks only, appends
nothing more, and hands over to one of those who made the commit (section 4.2.2). Until then it
campaigns as ever: it may be the only one who has the entry (`election`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core.raft import transfer
from p2psched.core.raft.replication import append_own, broadcast
from p2psched.core.raft.state import RaftState, Role, encode_membership
from p2psched.model.ids import PeerId
from p2psched.model.raft import EntryKind, Member, Membership

VOTERS_WANTED: Final = 3
REMOVED_MAX: Final = 256  # identities that are known to be removed; the oldest are forgotten


def on_add_member(s: RaftState, member: Member) -> None:
    """Add a learner, or replace what is known of a member's name and address."""
    if not may_change(s):
        return
    now = s.membership
    if now.member(member.peer) == member or member.peer in now.removed:
        return
    voters, learners = now.voters, now.learners
    if now.is_voter(member.peer):
        voters = tuple(member if m.peer == member.peer else m for m in voters)
    else:
        others = [m for m in learners if m.peer != member.peer]
        learners = tuple(sorted([*others, member], key=lambda m: m.peer))
    _change(s, msgspec.structs.replace(now, voters=voters, learners=learners))


def on_remove_member(s: RaftState, peer: PeerId) -> None:
    """Leave a member out; never the last voter."""
    now = s.membership
    if not may_change(s) or now.member(peer) is None:
        return
    voters = tuple(m for m in now.voters if m.peer != peer)
    learners = tuple(m for m in now.learners if m.peer != peer)
    if voters:
        _change(s, Membership(voters, learners, (*now.removed, peer)[-REMOVED_MAX:]))
        s.departing = s.membership_index


def end_removal(s: RaftState) -> None:
    """On a leader: who is left out has been told with the commit."""
    if s.role is not Role.LEADER or s.commit < s.departing:
        return
    s.departing = 0
    for peer in [peer for peer in s.progress if s.membership.member(peer) is None]:
        del s.progress[peer]
    if not s.membership.is_voter(s.me):
        transfer.depart(s)


def promote_if_due(s: RaftState) -> None:
    """Turn caught-up learners into voters while there are too few of them."""
    missing = VOTERS_WANTED - len(s.membership.voters)
    if missing <= 0 or not may_change(s):
        return
    ready = [m for m in s.membership.learners if m.votes and _is_caught_up(s, m)]
    # One voter stays alone until it can become three: two voters stand less than one.
    if len(ready) < missing:
        return
    chosen = min(ready, key=lambda m: m.peer)
    voters = tuple(sorted([*s.membership.voters, chosen], key=lambda m: m.peer))
    learners = tuple(m for m in s.membership.learners if m != chosen)
    _change(s, msgspec.structs.replace(s.membership, voters=voters, learners=learners))


def may_change(s: RaftState) -> bool:
    leads = s.role is Role.LEADER and s.transfer is None and s.commit >= s.leading_from
    return leads and s.membership_index <= s.commit


def _is_caught_up(s: RaftState, member: Member) -> bool:
    progress = s.progress.get(member.peer)
    return (
        progress is not None
        and not progress.probing
        and progress.match >= s.commit
        and s.now_ms - progress.contact_ms <= 2 * s.timing.heartbeat_ms
    )


def _change(s: RaftState, membership: Membership) -> None:
    append_own(s, EntryKind.MEMBERSHIP, encode_membership(membership))
    broadcast(s, heartbeat=False)
