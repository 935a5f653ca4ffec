"""Bugs in who is a member and who leads for what its disk takes: see `planted`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final
from unittest.mock import patch

from p2psched.core.raft import election, group, membership, replication
from p2psched.core.raft.effects import Commit
from p2psched.core.raft.state import RaftState, Role
from p2psched.model.ids import PeerId
from tests.scenarios.planted import Bug, changes_members_at_once
from tests.sim.member_mutants import (
    away_is_demoted_last,
    changes_too_early,
    even_stays,
    nobody_is_away,
    removed_lead_on,
    removed_never_campaign,
    takes_anybody_back,
)
from tests.sim.mutants import Planted


def _removed_always_campaign() -> Planted:
    return patch.object(election, "_has_a_say", lambda s: True)


def _own_disk_counts() -> Planted:
    """Of a leader that is no voter any more."""
    advance_commit = replication.advance_commit

    def hasty(s: RaftState) -> None:
        if s.role is Role.LEADER and not s.membership.is_voter(s.me):
            stored = sorted([s.log.stable, *(p.match for p in s.progress.values())])
            index = stored[(len(stored) - 1) // 2]
            if index > s.commit:
                s.commit = index
                s.emit(Commit(index))
        advance_commit(s)

    return patch.object(replication, "advance_commit", hasty)


def _voters_stay() -> Planted:
    on_remove_member = membership.on_remove_member

    def timid(s: RaftState, peer: PeerId) -> None:
        if not s.membership.is_voter(peer):
            on_remove_member(s, peer)

    return patch.object(membership, "on_remove_member", timid)


def _blind_and_early() -> Planted:
    """And it counts on voters that have not answered it: that alone would do."""
    stack = ExitStack()
    stack.enter_context(changes_too_early())
    stack.enter_context(patch.object(group, "answering", lambda seats, view: len(seats)))
    return stack


def _full_disks_campaign_as_others() -> Planted:
    def reset(s: RaftState) -> None:
        s.election_due_ms = s.now_ms + s.timing.election_ms_min

    return patch.object(RaftState, "reset_election_timer", reset)


MEMBER_BUGS: Final = (
    Bug(
        "raft_full_disk_campaigns_last",
        "a full disk campaigns as the others do",
        _full_disks_campaign_as_others,
        "b is pre-candidate",
    ),
    Bug("raft_dead_voter_is_replaced", "voters stay", _voters_stay, "b: pre-candidate"),
    Bug(
        "raft_removed_leader_must_still_campaign",
        "who is removed doesn't campaign",
        removed_never_campaign,
        "a: follower of nobody, term 2",
    ),
    Bug(
        "raft_leader_removes_itself",
        "its own disk counts",
        _own_disk_counts,
        "a: follower of nobody, term 2, vote a, committed 3 of 3",
    ),
    Bug(
        "raft_removed_peer_disturbs_nobody",
        "who is removed for good campaigns",
        _removed_always_campaign,
        "c is pre-candidate",
    ),
    Bug(
        "raft_removed_peer_disturbs_nobody",
        "an old identity becomes a member again",
        takes_anybody_back,
        "learners c",
    ),
    Bug(
        "raft_remove_before_own_commit",
        "members are changed at once",
        changes_members_at_once,
        "a writes 3@2 voters a b\n",
    ),
    Bug(
        "raft_voter_away_is_replaced",
        "nobody is ever away",
        nobody_is_away,
        "a changes no member now",
    ),
    Bug(
        "raft_voter_away_is_replaced",
        "one that is there is demoted",
        away_is_demoted_last,
        "a counts voters a c d, learners b",
    ),
    Bug(
        "raft_demoted_leader",
        "it leads on",
        removed_lead_on,
        "a: leader, term 2, vote a, committed 3 of 3",
    ),
    Bug(
        "raft_group_of_four",
        "an even number stays",
        even_stays,
        "b changes no member now",
    ),
    Bug(
        "raft_group_of_four",
        "before a commit of the own term",
        _blind_and_early,
        "b is leader in term 3\nb writes 4@3",
    ),
)
