"""Elections: pre-vote (section 9.6), votes, and check-quorum (section 6.2).

A peer that hears a working leader answers no candidate, so a returning or half-connected peer
raises nobody's term; but for one whom that leader told to take over (`transfer`). A leader that
hears no majority for an election timeout steps down.
"""

from __future__ import annotations

from p2psched.core.raft.progress import Progress, Sparing
from p2psched.core.raft.replication import append_own, broadcast
from p2psched.core.raft.state import LEADER, RaftState, Role
from p2psched.core.raft.timing import NEVER_MS
from p2psched.model.ids import PeerId
from p2psched.model.raft import EntryKind, VoteReply, VoteRequest


def on_tick(s: RaftState) -> None:
    if s.role is LEADER:
        _check_quorum(s)
        if s.role is LEADER and s.now_ms >= s.heartbeat_due_ms:
            broadcast(s, heartbeat=True)
    elif s.now_ms >= s.election_due_ms:
        _campaign_if_wanted(s)


def heard_majority_ms(s: RaftState) -> int:
    """On a leader: since when it has heard of a majority, with itself."""
    contacts = {peer: p.contact_ms for peer, p in s.progress.items()} | {s.me: s.now_ms}
    heard = [contacts.get(member.peer, NEVER_MS) for member in s.membership.voters]
    return sorted(heard, reverse=True)[len(heard) // 2]


def _check_quorum(s: RaftState) -> None:
    s.leader_heard_ms = heard_majority_ms(s)
    heard_since = s.now_ms - s.timing.election_ms_max
    heard = [peer for peer, p in s.progress.items() if p.contact_ms >= heard_since]
    if not s.is_majority([s.me, *heard]):
        s.become_follower(None)


def _campaign_if_wanted(s: RaftState) -> None:
    """Ask whether a campaign would be won, before any term is raised."""
    s.reset_election_timer()
    s.set_leader(None)
    if not _has_a_say(s) or not s.may_vote:
        return
    s.role = Role.PRE_CANDIDATE
    s.votes = {s.me}
    if s.is_majority(s.votes):
        campaign(s)
    else:
        _ask_votes(s, term=s.term + 1, pre=True)


def _has_a_say(s: RaftState) -> bool:
    """A voter; and one that was, as long as what removes it may not be committed: it may be the
    only one who has that entry, and nobody whose log is shorter wins against it."""
    if s.membership.is_voter(s.me):
        return True
    before = s.membership_at(s.membership_index - 1)
    return s.membership_index > s.commit and before.is_voter(s.me)


def campaign(s: RaftState, *, transfer: bool = False) -> None:
    """Raise the term and ask for votes; with `transfer` also those that hear our leader."""
    s.enter_term(s.term + 1)
    s.vote_for(s.me)
    s.role = Role.CANDIDATE
    s.promise_own_vote()
    _ask_votes(s, term=s.term, pre=False, transfer=transfer)


def _ask_votes(s: RaftState, *, term: int, pre: bool, transfer: bool = False) -> None:
    request = VoteRequest(term, s.log.last_index, s.log.last_term, pre, transfer)
    for voter in s.membership.voters:
        if voter.peer == s.me:
            continue
        if pre:
            s.send(voter.peer, request)
        else:
            s.promise(voter.peer, request)  # it says that we are in this term and voted


def on_vote_request(s: RaftState, sender: PeerId, request: VoteRequest) -> None:
    is_led = _has_working_leader(s) and not request.transfer
    if is_led or request.term < s.term or not s.may_vote:
        s.send(sender, VoteReply(s.term, False, request.pre))
        return
    log_is_current = (request.last_term, request.last_index) >= (s.log.last_term, s.log.last_index)
    if request.pre:
        granted = log_is_current and request.term > s.term
        s.send(sender, VoteReply(request.term if granted else s.term, granted, pre=True))
        return
    if request.term > s.term:
        s.enter_term(request.term)
    if log_is_current and s.hard.vote in (None, sender) and s.role is not LEADER:
        s.vote_for(sender)
        s.reset_election_timer()
        s.promise(sender, VoteReply(s.term, True, pre=False))
    else:
        s.promise(sender, VoteReply(s.term, False, pre=False))


def _has_working_leader(s: RaftState) -> bool:
    if s.role is LEADER:
        return True  # check-quorum ends it when it no longer works
    return s.leader is not None and s.now_ms - s.leader_heard_ms < s.timing.election_ms_min


def on_vote_reply(s: RaftState, sender: PeerId, reply: VoteReply) -> None:
    if not reply.granted:
        if reply.term > s.term:
            s.enter_term(reply.term)
        return
    if not s.membership.is_voter(sender):
        return
    if reply.pre:
        if s.role is Role.PRE_CANDIDATE and reply.term == s.term + 1:
            s.votes.add(sender)
            if s.is_majority(s.votes):
                campaign(s)
    elif reply.term == s.term:
        count_vote(s, sender)


def count_vote(s: RaftState, voter: PeerId) -> None:
    """A vote in the current term that is on its voter's disk; each voter counts once."""
    if s.role is not Role.CANDIDATE:
        return
    s.votes.add(voter)
    if s.is_majority(s.votes):
        _lead(s)


def _lead(s: RaftState) -> None:
    assert s.hard.vote == s.me
    s.role = LEADER
    s.votes.clear()
    s.leader = s.me
    s.stamp_base_ms, s.clock_base_ms = s.log.last_stamp_ms, s.now_ms
    s.progress = {peer: Progress(s.log.last_index + 1, s.now_ms) for peer in s.others()}
    s.leading_from = s.log.last_index + 1
    s.care.departing = 0 if s.membership.is_voter(s.me) else s.membership_index
    s.sparing = Sparing()
    append_own(s, EntryKind.NOOP, b"")
    broadcast(s, heartbeat=True)
