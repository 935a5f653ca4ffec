"""Who votes: changes of one member at a time, in the log (section 4.1).

Refused until the leader has committed in its own term and the last change is committed. A peer is
a learner first. Who is made a voter, and who is no more, is decided by `group`; as long as some
peers are too old for that, learners are made voters up to three, and no voter a learner.

Whoever is removed is told of it along with the commit of that, and of nothing more; its identity
doesn't become a member again. A leader that removes itself, or makes itself a learner, counts the
others' disks only, appends nothing more, and hands over to one of those who made the commit
(section 4.2.2). Until then it campaigns as ever: it may be the only one who has the entry
(`election`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core.raft import group, transfer
from p2psched.core.raft.replication import append_own, broadcast
from p2psched.core.raft.state import LEADER, RaftState, encode_membership
from p2psched.model.ids import PeerId
from p2psched.model.raft import EntryKind, Member, Membership

UNREGULATED: Final = 3  # voters, where the group is not looked after yet
LOOK_MS: Final = 100  # between two looks at the group, and 1 more for each member
LAG_MAX: Final = 64  # entries that a learner may lack when it is made a voter
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
    """Leave a member out; never the last voter. Whoever is none, as a follower, can't become one
    any more."""
    now = s.membership
    if not may_change(s) or peer in now.removed:
        return
    voters = tuple(m for m in now.voters if m.peer != peer)
    learners = tuple(m for m in now.learners if m.peer != peer)
    if voters:
        removed = (*now.removed, peer)[-REMOVED_MAX:]
        left = _without_wish(now, peer)
        change = {"voters": voters, "learners": learners, "removed": removed}
        _change(s, msgspec.structs.replace(left, **change))
        s.care.departing = s.membership_index


def on_wish(s: RaftState, peer: PeerId, *, votes: bool) -> None:
    """Note it. Who shall not vote is a learner from here on; the last voter goes on voting. Who
    shall is made a voter by `group`."""
    now = s.membership
    if not may_change(s) or now.member(peer) is None or now.wish(peer) == votes:
        return
    if not votes and now.is_voter(peer):
        if len(now.voters) > 1:
            _demote(s, peer, votes=False)
        return
    _change(s, _with_wish(now, peer, votes=votes))


def on_want(s: RaftState, count: int) -> None:
    if may_change(s) and s.membership.wanted != count:
        _change(s, msgspec.structs.replace(s.membership, wanted=count))


def follow_up(s: RaftState) -> None:
    """What a change leads to once it is committed."""
    if s.care.departing:
        _end_removal(s)
    if s.care.halfway:
        _go_on(s)


def _end_removal(s: RaftState) -> None:
    """On a leader: who is left out has been told with the commit."""
    if s.role is not LEADER or s.commit < s.care.departing:
        return
    s.care.departing = 0
    for peer in [peer for peer in s.progress if s.membership.member(peer) is None]:
        del s.progress[peer]
    if not s.membership.is_voter(s.me):
        transfer.depart(s)


# --- looking after the group ----------------------------------------------------------------------


def regulate(s: RaftState, away_ms: int) -> None:
    """Make the next change that the group needs, if there is one and it may be made now."""
    care = s.care
    care.on, care.away_ms = True, away_ms
    if s.now_ms < care.due_ms or not may_change(s):
        return
    care.due_ms = s.now_ms + LOOK_MS + len(s.progress)
    if care.index != s.membership_index:
        care.index, care.since_ms = s.membership_index, s.now_ms
    match group.next_change(view_of(s, away_ms)):
        case group.Promote(peer=peer):
            _promote(s, peer)
        case group.Demote(peer=peer):
            _demote(s, peer)
        case None:
            pass


def _go_on(s: RaftState) -> None:
    """At once, once a change to an even number of voters is committed: of two voters neither may be
    gone."""
    care = s.care
    if s.role is LEADER and s.commit < care.halfway:
        return
    care.halfway = 0
    if care.on:
        care.due_ms = 0
        regulate(s, care.away_ms)


def view_of(s: RaftState, away_ms: int) -> group.View:
    """The group as this leader sees it. Whoever leads anew gives everybody time again."""
    now = s.membership
    wishes = dict(now.wishes)
    return group.View(
        tuple(
            _seat(s, member, votes=votes, wish=wishes.get(member.peer))
            for votes, members in ((True, now.voters), (False, now.learners))
            for member in members
        ),
        wanted=now.wanted or group.VOTERS_WANTED,
        # No shorter than what a leader needs to know that it leads nobody.
        away_ms=max(away_ms, 2 * s.timing.election_ms_max),
        silent_ms=s.timing.election_ms_max,
        unchanged_ms=s.now_ms - s.care.since_ms,
    )


def _seat(s: RaftState, member: Member, *, votes: bool, wish: bool | None) -> group.Seat:
    progress = s.progress.get(member.peer)
    heard_ms = min(progress.contact_ms, progress.able_ms) if progress is not None else s.now_ms
    return group.Seat(
        peer=member.peer,
        votes=votes,
        zone=member.zone,
        may_vote=member.votes if wish is None else wish,
        chosen=wish is True,
        silent_ms=s.now_ms - heard_ms,
        ready=_is_caught_up(s, member),
        leads=member.peer == s.me,
        name=member.name,
        answered=progress is None or progress.match > 0,
    )


def promote_if_due(s: RaftState) -> None:
    """Turn caught-up learners into voters while there are too few of them, where `regulate` may
    not be asked yet."""
    missing = UNREGULATED - len(s.membership.voters)
    if s.care.on or missing <= 0 or not may_change(s):
        return
    refused = [peer for peer, votes in s.membership.wishes if not votes]
    ready = [m for m in s.membership.learners if m.votes and _is_caught_up(s, m)]
    ready = [m for m in ready if m.peer not in refused]
    # One voter stays alone until it can become three: two voters stand less than one.
    if len(ready) >= missing:
        _promote(s, min(ready, key=lambda m: m.peer).peer)


def may_change(s: RaftState) -> bool:
    leads = s.role is LEADER and s.transfer is None and s.commit >= s.leading_from
    return leads and s.membership_index <= s.commit


def _is_caught_up(s: RaftState, member: Member) -> bool:
    progress = s.progress.get(member.peer)
    return (
        progress is not None
        and not progress.probing
        and progress.match + LAG_MAX >= s.commit
        and s.now_ms - progress.contact_ms <= 2 * s.timing.heartbeat_ms
    )


def _promote(s: RaftState, peer: PeerId) -> None:
    now = s.membership
    chosen = [m for m in now.learners if m.peer == peer]
    voters = tuple(sorted([*now.voters, *chosen], key=lambda m: m.peer))
    learners = tuple(m for m in now.learners if m.peer != peer)
    _change(s, msgspec.structs.replace(now, voters=voters, learners=learners))


def _demote(s: RaftState, peer: PeerId, *, votes: bool | None = None) -> None:
    now = s.membership if votes is None else _with_wish(s.membership, peer, votes=votes)
    leaving = [m for m in now.voters if m.peer == peer]
    voters = tuple(m for m in now.voters if m.peer != peer)
    assert voters, "somebody votes"
    learners = tuple(sorted([*now.learners, *leaving], key=lambda m: m.peer))
    _change(s, msgspec.structs.replace(now, voters=voters, learners=learners))
    if peer == s.me:
        s.care.departing = s.membership_index


def _with_wish(now: Membership, peer: PeerId, *, votes: bool) -> Membership:
    wishes = sorted({**dict(now.wishes), peer: votes}.items())
    return msgspec.structs.replace(now, wishes=tuple(wishes))


def _without_wish(now: Membership, peer: PeerId) -> Membership:
    wishes = tuple(wish for wish in now.wishes if wish[0] != peer)
    return msgspec.structs.replace(now, wishes=wishes)


def _change(s: RaftState, membership: Membership) -> None:
    append_own(s, EntryKind.MEMBERSHIP, encode_membership(membership))
    s.care.halfway = 0 if len(membership.voters) % 2 else s.membership_index
    broadcast(s, heartbeat=False)
