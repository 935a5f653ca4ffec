"""Bugs in the removal of members, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core import peering, scheduler
from p2psched.core.raft import election, group, membership, transfer
from p2psched.core.raft.state import RaftState, Role
from p2psched.core.raft.timing import Timing
from p2psched.model.raft import Member
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def removed_never_campaign() -> Planted:
    return patch.object(election, "_has_a_say", lambda s: s.membership.is_voter(s.me))


def removed_lead_on() -> Planted:
    return patch.object(transfer, "depart", lambda s: None)


def takes_anybody_back() -> Planted:
    on_add_member = membership.on_add_member

    def forgetful(s: RaftState, member: Member) -> None:
        now = s.membership
        if member.peer in now.removed and membership.may_change(s) and not now.member(member.peer):
            learners = (*now.learners, member)
            membership._change(s, msgspec.structs.replace(now, learners=learners))
        else:
            on_add_member(s, member)

    return patch.object(membership, "on_add_member", forgetful)


def _changes(rule: Callable[[group.View, Change], Change]) -> Planted:
    """What the policy says goes through `rule` first."""
    next_change = group.next_change
    return patch.object(group, "next_change", lambda view: rule(view, next_change(view)))


def even_stays() -> Planted:
    def idle(view: group.View, change: Change) -> Change:
        return change if sum(seat.votes for seat in view.seats) % 2 else None

    return _changes(idle)


def nobody_is_away() -> Planted:
    """Whoever is silent counts as there."""
    next_change = group.next_change
    return patch.object(
        group,
        "next_change",
        lambda view: next_change(msgspec.structs.replace(view, away_ms=10**9)),
    )


def away_is_demoted_last() -> Planted:
    worst = group._worst_of

    def awake(voters: Sequence[group.Seat], view: group.View) -> group.Seat:
        return worst([seat for seat in voters if seat.silent_ms < view.away_ms] or voters, view)

    return patch.object(group, "_worst_of", awake)


def _zones_are_not_looked_at() -> Planted:
    return patch.object(group, "_crowds", lambda _: Counter())


def _wishes_are_not_looked_at() -> Planted:
    seat_of = membership._seat

    def deaf(*words: object, wish: bool | None, **more: object) -> group.Seat:
        return seat_of(*words, wish=wish is not None or None, **more)  # type: ignore[arg-type]  # passed on

    return patch.object(membership, "_seat", deaf)


def changes_too_early() -> Planted:
    """Before the leader has committed in its term."""

    def hasty(s: RaftState) -> bool:
        return s.role is Role.LEADER and s.membership_index <= s.commit and s.transfer is None

    return patch.object(membership, "may_change", hasty)


def removed_peers_stay() -> Planted:
    return patch.object(scheduler, "to_forget", lambda s, removed: [])


def who_is_down_is_forgotten() -> Planted:
    to_forget = peering.to_forget
    return patch.object(scheduler, "to_forget", lambda s, removed: to_forget(s, list(s.peers)))


Change = group.Promote | group.Demote | None

# Disks are lost for good, and peers are away for a while.
LOSSES: Final = Faults(drop=0.05, wipe_every_ms=1_500, pause_every_ms=2_000, pause_ms_max=2_000)

# People change their minds, and leaders are cut off.
REGROUPED: Final = Faults(
    drop=0.1, regroup_every_ms=200, cut_every_ms=700, cut_ms_max=500, leave_every_ms=1_000
)

# Members come and go; their leader is cut off and killed meanwhile.
RESTIVE: Final = Faults(
    drop=0.1,
    replace_every_ms=300,
    crash_every_ms=1_000,
    power_loss=0.0,
    cut_every_ms=1_000,
    cut_ms_max=500,
    restart_ms_max=200,
)

MEMBER_MUTANTS: Final = (
    Mutant(
        name="a leader that removes itself never campaigns again",
        plant=removed_never_campaign,
        faults=RESTIVE,
        timing=Timing(heartbeat_ms=50, election_ms_min=200, election_ms_max=400),
        peers=2,
        broken="L5",
    ),
    Mutant(
        name="a leader that is removed leads on",
        plant=removed_lead_on,
        faults=RESTIVE,
        broken="P12",
    ),
    Mutant(
        name="who was removed comes back under its old identity",
        plant=takes_anybody_back,
        faults=RESTIVE,
        broken="P12",
    ),
    Mutant(
        name="an even number of voters stays",
        plant=even_stays,
        faults=LOSSES,
        peers=4,
        healing=True,
        broken="P12",
    ),
    Mutant(
        name="a voter that is gone keeps its place",
        plant=nobody_is_away,
        faults=LOSSES,
        healing=True,
        broken="P12",
    ),
    Mutant(
        name="a voter that is there is demoted for one that is gone",
        plant=away_is_demoted_last,
        faults=LOSSES,
        healing=True,
        broken="P12",
    ),
    Mutant(
        name="voters are not spread over zones",
        plant=_zones_are_not_looked_at,
        faults=LOSSES,
        peers=7,
        healing=True,
        broken="P12",
    ),
    Mutant(
        name="what people say of a member is not heard",
        plant=_wishes_are_not_looked_at,
        faults=REGROUPED,
        peers=4,
        healing=True,
        broken="P12",
    ),
    Mutant(
        name="the group is changed before its leader has committed",
        plant=changes_too_early,
        faults=REGROUPED,
        healing=True,
        broken="P12",
    ),
    Mutant(
        name="removed peers stay in the ledger",
        plant=removed_peers_stay,
        faults=RESTIVE,
        broken="P13",
    ),
    Mutant(
        name="a peer that is down is taken for a removed one",
        plant=who_is_down_is_forgotten,
        faults=RESTIVE,
        broken="P13",
    ),
)
