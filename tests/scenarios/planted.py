"""What a planted bug is here, and those of Raft: each is one that somebody shipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

from p2psched.core.raft import election, membership, reads, replication, snapshots
from p2psched.core.raft.effects import Commit, ReadReady
from p2psched.core.raft.state import RaftState, Role, WaitingRead
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    HardState,
    ReadReply,
    SnapshotPiece,
    VoteReply,
    VoteRequest,
)
from p2psched.store import recovery
from p2psched.store.log import LogStore
from tests.sim.mutants import MUTANTS, Planted, Planting


@dataclass(frozen=True, slots=True)
class Bug:
    """Planted, it changes what the script gives: `sign` is there more often than before."""

    script: str
    name: str
    plant: Planting
    sign: str


def known(name: str) -> Planting:
    """A bug that the simulator must notice, too."""
    return next(mutant.plant for mutant in MUTANTS if mutant.name == name)


# --- elections ------------------------------------------------------------------------------------


def _counts_replies() -> Planted:
    tally: dict[tuple[PeerId, int], int] = {}

    def count_vote(s: RaftState, voter: PeerId) -> None:
        if s.role is Role.CANDIDATE:
            key = (s.me, s.term)
            tally[key] = tally.get(key, 0) + 1
            if tally[key] * 2 > len(s.membership.voters):
                election._lead(s)

    return patch.object(election, "count_vote", count_vote)


def _counts_old_votes() -> Planted:
    on_vote_reply = election.on_vote_reply

    def blind(s: RaftState, sender: PeerId, reply: VoteReply) -> None:
        if reply.granted and not reply.pre:
            reply = VoteReply(s.term, True, pre=False)
        on_vote_reply(s, sender, reply)

    return patch.object(election, "on_vote_reply", blind)


def _own_vote_at_once() -> Planted:
    return patch.object(
        RaftState, "promise_own_vote", lambda state: election.count_vote(state, state.me)
    )


def _asks_votes_at_once() -> Planted:
    promise = RaftState.promise

    def hasty(s: RaftState, to: PeerId, message: VoteRequest | AppendReply) -> None:
        (s.send if isinstance(message, VoteRequest) else promise.__get__(s))(to, message)

    return patch.object(RaftState, "promise", hasty)


def _campaigns_at_once() -> Planted:
    def campaign(s: RaftState) -> None:
        s.reset_election_timer()
        s.set_leader(None)
        if s.membership.is_voter(s.me):
            election.campaign(s)

    return patch.object(election, "_campaign_if_wanted", campaign)


def _hears_every_candidate() -> Planted:
    return patch.object(election, "_has_working_leader", lambda s: False)


def _refuses_its_old_leader_for_ever() -> Planted:
    """Its leader is the one that it last knew, whether it was heard since or not."""
    has_leader = election._has_working_leader
    last: dict[PeerId, PeerId] = {}

    def loyal(s: RaftState) -> bool:
        if s.leader is not None:
            last[s.me] = s.leader
        return has_leader(s) or last.get(s.me, s.me) != s.me

    return patch.object(election, "_has_working_leader", loyal)


def _never_steps_down() -> Planted:
    return patch.object(election, "_check_quorum", lambda s: None)


def _half_is_enough() -> Planted:
    def is_majority(s: RaftState, peers: Iterable[PeerId]) -> bool:
        voters = {member.peer for member in s.membership.voters}
        return len(voters.intersection(peers)) * 2 >= len(voters)

    return patch.object(RaftState, "is_majority", is_majority)


def _learners_campaign() -> Planted:
    def campaign(s: RaftState) -> None:
        s.reset_election_timer()
        s.set_leader(None)
        s.role, s.votes = Role.PRE_CANDIDATE, {s.me}
        if s.is_majority(s.votes):
            election.campaign(s)
        else:
            election._ask_votes(s, term=s.term + 1, pre=True)

    return patch.object(election, "_campaign_if_wanted", campaign)


def _any_log_is_good() -> Planted:
    on_vote_request = election.on_vote_request

    def blind(s: RaftState, sender: PeerId, request: VoteRequest) -> None:
        longest = VoteRequest(request.term, 1 << 40, 1 << 40, request.pre)
        on_vote_request(s, sender, longest)

    return patch.object(election, "on_vote_request", blind)


# --- replication ----------------------------------------------------------------------------------


def _acks_heartbeats_at_once() -> Planted:
    def reply(s: RaftState, sender: PeerId, append: Append, match: int) -> None:
        answer = AppendReply(s.term, append.round, True, match)
        if append.entries:
            s.promise(sender, answer)
        else:
            s.send(sender, answer)

    return patch.object(replication, "_reply", reply)


def _commits_what_it_has() -> Planted:
    on_append = replication.on_append

    def hasty(s: RaftState, sender: PeerId, append: Append) -> None:
        on_append(s, sender, append)
        commit = min(append.commit, s.log.last_index)
        if commit > s.commit:
            s.commit = commit
            s.emit(Commit(commit))

    return patch.object(replication, "on_append", hasty)


def _own_disk_is_not_asked() -> Planted:
    advance = replication.advance_commit

    def hasty(s: RaftState) -> None:
        stable, s.log.stable = s.log.stable, s.log.last_index
        try:
            advance(s)
        finally:
            s.log.stable = stable

    return patch.object(replication, "advance_commit", hasty)


def _waits_for_everybody() -> Planted:
    advance = replication.advance_commit

    def patient(s: RaftState) -> None:
        have = [replication._match(s, voter.peer) for voter in s.membership.voters]
        if sum(match > s.commit for match in have) >= len(have) - 1:
            advance(s)

    return patch.object(replication, "advance_commit", patient)


def truncations_are_not_written() -> Planted:
    write = LogStore.write

    def keep(
        store: LogStore,
        *,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: list[Entry],
    ) -> None:
        if truncate_from is not None:  # what is there stays there
            entries = []
        write(store, hard_state=hard_state, truncate_from=None, entries=entries)

    return patch.object(LogStore, "write", keep)


# --- members and reads ----------------------------------------------------------------------------


def changes_members_at_once() -> Planted:
    return patch.object(membership, "may_change", lambda s: s.role is Role.LEADER)


def _asks_nobody() -> Planted:
    def start(s: RaftState, read: int, asker: PeerId | None) -> None:
        s.answer_read(WaitingRead(read, asker, 0, 0), s.commit)

    return patch.object(reads, "_start", start)


def _any_answer_confirms() -> Planted:
    on_append_reply = replication.on_append_reply

    def blind(s: RaftState, sender: PeerId, reply: AppendReply) -> None:
        on_append_reply(s, sender, AppendReply(reply.term, s.round, reply.ok, reply.match))

    return patch.object(replication, "on_append_reply", blind)


def reads_what_it_knows() -> Planted:
    return patch.object(reads, "on_read", lambda s, read: s.emit(ReadReady(read, s.commit)))


def _follower_takes_any_index() -> Planted:
    """It was told that there is a leader, and looks at what it has, not up to where it must."""

    def on_read_reply(s: RaftState, reply: ReadReply) -> None:
        s.emit(ReadReady(reply.read, None if reply.index < 0 else s.commit))

    return patch.object(reads, "on_read_reply", on_read_reply)


def _takes_any_snapshot() -> Planted:
    """Older than what it has, or not."""
    on_piece = snapshots.on_piece

    def blind(s: RaftState, sender: PeerId, piece: SnapshotPiece) -> None:
        on_piece(s, sender, piece)
        if piece.snapshot.index < s.commit:
            snapshots._take(s, piece)

    return patch.object(snapshots, "on_piece", blind)


# --- the log on disk ------------------------------------------------------------------------------


def _cuts_at_any_bad_record() -> Planted:
    return patch.object(recovery, "find_later_group", lambda data, end, seed: None)


def _refuses_every_bad_record() -> Planted:
    return patch.object(recovery, "find_later_group", lambda data, end, seed: end)


TWO_LEADERS: Final = "has two leaders"
LOST: Final = "leads without the committed entry"

RAFT_BUGS: Final = (
    Bug(
        "raft_vote_lost_with_the_power",
        "vote is sent before it is on disk",
        known("vote is sent before it is on disk"),
        TWO_LEADERS,
    ),
    Bug(
        "raft_vote_survives_a_crash", "vote is not stored", known("vote is not stored"), TWO_LEADERS
    ),
    Bug(
        "raft_vote_kept_when_stepping_down",
        "vote is cleared",
        known("vote is forgotten when stepping down in its term"),
        TWO_LEADERS,
    ),
    Bug("raft_vote_reply_twice", "replies are counted", _counts_replies, "a: leader"),
    Bug("raft_vote_reply_of_an_old_term", "old votes count", _counts_old_votes, TWO_LEADERS),
    Bug("raft_candidate_with_a_shorter_log", "any log is good", _any_log_is_good, LOST),
    Bug("raft_alone_with_a_slow_disk", "own vote at once", _own_vote_at_once, "a: leader"),
    Bug(
        "raft_own_vote_on_disk_first",
        "votes are asked for at once",
        _asks_votes_at_once,
        "a -> c  vote for me",
    ),
    Bug("raft_returning_laptop", "no pre-vote", _campaigns_at_once, "c is candidate"),
    Bug("raft_returning_laptop", "every candidate is heard", _hears_every_candidate, "term 3"),
    Bug(
        "raft_ex_leader_returns",
        "the old leader is refused for its own sake",
        _refuses_its_old_leader_for_ever,
        "a: pre-candidate",
    ),
    Bug("raft_leader_that_hears_nobody", "no check-quorum", _never_steps_down, "a: leader"),
    Bug("raft_even_group", "half is a majority", _half_is_enough, "c is leader"),
    Bug("raft_learner_votes_for_nobody", "learners campaign", _learners_campaign, "pre-candidate"),
    Bug(
        "raft_old_term_committed_by_counting",
        "old terms are committed by counting",
        known("entries of old terms are committed by counting"),
        LOST,
    ),
    Bug(
        "raft_empty_append_acked_beyond_the_disk",
        "heartbeats are acknowledged from memory",
        _acks_heartbeats_at_once,
        LOST,
    ),
    Bug(
        "raft_acked_before_the_disk",
        "entries are acknowledged before they are on disk",
        known("entries are acknowledged before they are on disk"),
        LOST,
    ),
    Bug(
        "raft_commit_beyond_what_fits",
        "commit past what fits",
        _commits_what_it_has,
        "was committed there before",
    ),
    Bug(
        "raft_leader_with_a_slow_disk",
        "the leader's disk counts unasked",
        _own_disk_is_not_asked,
        "committed 3 of 3",
    ),
    Bug("raft_slow_follower_stalls_nobody", "all are waited for", _waits_for_everybody, "2 of 5"),
    Bug(
        "raft_truncation_survives_a_crash",
        "truncations are not written",
        truncations_are_not_written,
        "6@3 z, 7@3 zz",
    ),
    Bug(
        "raft_replayed_append_truncates_nothing",
        "what agrees is dropped and taken again",
        known("entries that agree are dropped and taken again"),
        "nothing from 3 on",
    ),
    Bug(
        "raft_reordered_appends",
        "what agrees is dropped and taken again",
        known("entries that agree are dropped and taken again"),
        "nothing from 3 on",
    ),
    Bug(
        "raft_member_change_before_own_commit",
        "members are changed at once",
        changes_members_at_once,
        "learners d e, not synced",
    ),
    Bug(
        "raft_everybody_restarts",
        "members are changed at once",
        changes_members_at_once,
        "after 5@3; term 3, committed 4",
    ),
    Bug("raft_read_before_own_commit", "nobody is asked", _asks_nobody, "!! c reads"),
    Bug("raft_read_without_a_majority", "nobody is asked", _asks_nobody, "!! a reads"),
    Bug("raft_read_confirmed_by_an_old_answer", "any answer", _any_answer_confirms, "!! a reads"),
    Bug("raft_read_between_check_and_look", "no wait", _follower_takes_any_index, "!! c reads"),
    Bug(
        "raft_snapshot_for_who_was_away",
        "a snapshot is acknowledged before it is on disk",
        known("a snapshot is acknowledged before it is on disk"),
        "not yet\nc -> a  have snapshot 4",
    ),
    Bug(
        "raft_snapshot_lost_before_it_is_on_disk",
        "a snapshot is acknowledged before it is on disk",
        known("a snapshot is acknowledged before it is on disk"),
        "have snapshot 3",
    ),
    Bug("raft_old_snapshot_arrives_late", "any is taken", _takes_any_snapshot, "!! c stops"),
    Bug("raft_hole_in_the_log", "a hole is a torn tail", _cuts_at_any_bad_record, "a torn tail"),
    Bug("raft_torn_tail", "a torn tail is a hole", _refuses_every_bad_record, "doesn't start"),
    Bug("raft_everybody_restarts", "vote is not stored", known("vote is not stored"), "vote -"),
)
