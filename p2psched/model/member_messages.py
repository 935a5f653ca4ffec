"""Calls about the members of the group, and their answers: a part of `model.messages`.

Tags are among those of all calls and answers, and for ever.
"""

from __future__ import annotations

import msgspec

from p2psched.model.ids import PeerId


class ChangeMember(msgspec.Struct, frozen=True, array_like=True, tag=55):
    """`peer remove|promote|demote`. Answered by the leader (others pass it on); safe to repeat."""

    peer: str  # as a person typed it: a name, an id, or the first digits of one
    change: str  # "remove", "promote" or "demote"


class SetVoters(msgspec.Struct, frozen=True, array_like=True, tag=56):
    """How many voters there shall be; 0: as is usual. Answered by the leader; safe to repeat."""

    count: int


class GetStanding(msgspec.Struct, frozen=True, array_like=True, tag=57):
    """How far this peer is. Answered without a quorum."""


class MemberChanged(msgspec.Struct, frozen=True, array_like=True, tag=55):
    """`role` is what the peer is by now: leader, voter, learner, removed. One that shall vote may
    still be a learner: then ask again."""

    peer: PeerId
    name: str
    changed: bool  # False: it was so already
    role: str
    voters: int  # there are
    lag: int = 0  # entries that it lacks


class VotersSet(msgspec.Struct, frozen=True, array_like=True, tag=56):
    changed: bool
    wanted: int
    voters: int  # there are


class Standing(msgspec.Struct, frozen=True, array_like=True, tag=57):
    term: int
    applied_index: int


MemberCall = ChangeMember | SetVoters | GetStanding
MemberAnswer = MemberChanged | VotersSet | Standing
