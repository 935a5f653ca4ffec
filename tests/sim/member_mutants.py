"""Bugs in the removal of members, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core.raft import election, membership, transfer
from p2psched.core.raft.state import RaftState
from p2psched.core.raft.timing import Timing
from p2psched.model.raft import Member
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def removed_never_campaign() -> Planted:
    return patch.object(election, "_has_a_say", lambda s: s.membership.is_voter(s.me))


def _removed_lead_on() -> Planted:
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
        plant=_removed_lead_on,
        faults=RESTIVE,
        broken="P12",
    ),
    Mutant(
        name="who was removed comes back under its old identity",
        plant=takes_anybody_back,
        faults=RESTIVE,
        broken="P12",
    ),
)
