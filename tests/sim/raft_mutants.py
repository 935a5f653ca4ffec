"""Bugs in elections, commits, reads and changes of members, planted on purpose: see `mutants`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core.raft import election, membership, reads, replication
from p2psched.core.raft.effects import Commit
from p2psched.core.raft.replication import broadcast
from p2psched.core.raft.state import RaftState, Role, WaitingRead
from p2psched.core.raft.timing import Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import Append, VoteRequest
from p2psched.testing.faults import Faults
from tests.sim.mutants import RESTLESS, Mutant, Planted


def _votes_for_any_log() -> Planted:
    on_vote_request = election.on_vote_request

    def careless(s: RaftState, sender: PeerId, request: VoteRequest) -> None:
        last_term = max(request.last_term, s.log.last_term)
        longer = msgspec.structs.replace(
            request, last_term=last_term, last_index=max(request.last_index, s.log.last_index)
        )
        on_vote_request(s, sender, longer)

    return patch.object(election, "on_vote_request", careless)


def _counts_votes_twice() -> Planted:
    """A voter's answer that comes twice, as two votes."""

    def count(s: RaftState, voter: PeerId) -> None:
        if s.role is not Role.CANDIDATE:
            return
        ballots: list[tuple[int, PeerId]] = s.__dict__.setdefault("_ballots", [])
        ballots.append((s.term, voter))
        s.votes.add(voter)
        if 2 * sum(term == s.term for term, _ in ballots) > len(s.membership.voters):
            election._lead(s)

    return patch.object(election, "count_vote", count)


def _commits_what_it_never_matched() -> Planted:
    """A follower commits as far as its leader did and its own log reaches."""
    on_append = replication.on_append

    def hasty(s: RaftState, sender: PeerId, append: Append) -> None:
        on_append(s, sender, append)
        commit = min(append.commit, s.log.last_index)
        if s.leader == sender and s.term == append.term and commit > s.commit:
            s.commit = commit
            s.emit(Commit(commit))

    return patch.object(replication, "on_append", hasty)


def _changes_members_at_once() -> Planted:
    return patch.object(
        membership,
        "may_change",
        lambda s: s.role is Role.LEADER and s.membership_index <= s.commit,
    )


def _reads_before_it_has_committed() -> Planted:
    def start(s: RaftState, read: int, asker: PeerId | None) -> None:
        s.round += 1
        s.reads.append(WaitingRead(read, asker, s.commit, s.round))
        broadcast(s, heartbeat=True)
        reads.answer_confirmed(s)

    return patch.object(reads, "_start", start)


def _reads_without_a_quorum() -> Planted:
    """As under a lease that nobody gave."""

    def start(s: RaftState, read: int, asker: PeerId | None) -> None:
        known = s.commit >= s.leading_from
        s.answer_read(WaitingRead(read, asker, 0, 0), s.commit if known else None)

    return patch.object(reads, "_start", start)


# Leaders are cut off and don't know; what they commit reaches others late.
TORN: Final = Faults(
    drop=0.1,
    in_order=False,
    delay_us=20_000,
    tail=0.2,
    cut_every_ms=400,
    cut_ms_max=1_500,
    sync_us_max=20_000,
)

RAFT_MUTANTS: Final = (
    Mutant(
        name="a vote is given whatever the candidate's log holds",
        plant=_votes_for_any_log,
        faults=replace(TORN, crash_every_ms=1_000),
        broken="P4",
    ),
    Mutant(
        name="a vote that arrives twice counts twice",
        plant=_counts_votes_twice,
        faults=replace(TORN, duplicate=0.5),
        peers=5,
        broken="P4",
    ),
    Mutant(
        name="a follower commits what it never matched",
        plant=_commits_what_it_never_matched,
        faults=TORN,
        broken="P4",
        jobs_max=20,
    ),
    Mutant(
        name="members change before a leader has committed in its term",
        plant=_changes_members_at_once,
        faults=replace(RESTLESS, replace_every_ms=200),
        broken="P12",
    ),
    Mutant(
        name="a leader answers reads before it has committed in its term",
        plant=_reads_before_it_has_committed,
        faults=replace(TORN, crash_every_ms=1_000),
        broken="P8",
        jobs_max=40,
    ),
    Mutant(
        name="a leader answers reads without asking a majority",
        plant=_reads_without_a_quorum,
        faults=TORN,
        timing=Timing(heartbeat_ms=20, election_ms_min=50, election_ms_max=400),
        broken="P8",
        jobs_max=40,
    ),
)
