"""Who shall vote: from what a leader knows of its members, at most one next change. Pure.

The group has an odd number of voters: what is wanted, or the next lower that the members allow
(one of two peers, three of three or four). Rules, the first that applies:

1. An even number is on its way to an odd one: up if a learner is ready for it, else down; it waits
   only for a learner that still catches up, and no longer than for a voter that is away.
2. Too few voters: the best learner. Not before enough are ready for an odd number.
3. Too many: the worst voter. Two that are away without a learner for either count as too many,
   for the rest bears more without them; one that is away doesn't.
4. A voter is away, heard by nobody for `away_ms`, or its disk full for so long: a learner takes its
   place. One of its own name does so sooner: somebody has started it for that.
5. A learner that somebody chose takes the place of a voter that nobody chose.
6. Voters of one domain make way for a learner of a domain that has two fewer.

A place is taken by a promotion first, then rule 1 demotes: in between the group bears as much as
before. Nobody is demoted if those that answer would then be no majority. Who is demoted goes on as
a learner, under the same identity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from p2psched.model.ids import PeerId

VOTERS_WANTED: Final = 5  # unless the membership says otherwise
VOTERS_MAX: Final = 7
HEIR_SHARE: Final = 10  # of the usual time, until a voter makes way for one of its own name


class Seat(msgspec.Struct, frozen=True):
    """A member as the leader sees it."""

    peer: PeerId
    votes: bool
    zone: str = ""  # its failure domain; empty: one of its own
    may_vote: bool = True  # it wants to, and nobody has said that it shall not
    chosen: bool = False  # somebody has said that it shall
    silent_ms: int = 0  # since it was heard, and could write
    ready: bool = True  # it has what is committed, or nearly
    leads: bool = False
    name: str = ""
    answered: bool = True  # since its leader leads, who counts everybody as heard at first

    @property
    def domain(self) -> str:
        return self.zone or f"peer {self.peer}"


class View(msgspec.Struct, frozen=True):
    """`seats`: of all members, the leader's among them."""

    seats: tuple[Seat, ...]
    wanted: int = VOTERS_WANTED
    away_ms: int = 300_000  # silence after which a voter is replaced
    silent_ms: int = 1_000  # silence after which one does not count as answering
    unchanged_ms: int = 0  # since the membership is as it is


class Promote(msgspec.Struct, frozen=True):
    peer: PeerId


class Demote(msgspec.Struct, frozen=True):
    peer: PeerId


def next_change(view: View) -> Promote | Demote | None:
    voters = [seat for seat in view.seats if seat.votes]
    learners = [seat for seat in view.seats if not seat.votes and seat.may_vote]
    ready = [seat for seat in learners if seat.ready]
    heirs = {seat.name for seat in ready if seat.name}
    here = [seat for seat in voters if seat.silent_ms < _patience_ms(seat, heirs, view)]
    coming = [seat for seat in learners if seat.silent_ms < view.away_ms]
    count, eligible = len(voters), len(voters) + len(learners)
    most = _odd(min(view.wanted, len(here) + len(ready)))
    if count % 2 == 0:
        if count < most:
            return _best(ready, here)
        soon = _odd(min(view.wanted, len(here) + len(coming)))
        waits = count < soon and view.unchanged_ms < view.away_ms
        return None if waits else _worst(voters, view)
    if count < most:
        return _best(ready, here)
    if count > _odd(min(view.wanted, eligible, len(here) + len(coming) + 1)):
        return _worst(voters, view)
    if len(here) < count and ready:
        return _best(ready, here)
    return _chosen(voters, ready, here) or _spread(voters, ready, view)


def answering(seats: Sequence[Seat], view: View) -> int:
    """How many of them would help to commit something now."""
    return sum(seat.answered and seat.silent_ms < view.silent_ms for seat in seats)


def _patience_ms(seat: Seat, heirs: set[str], view: View) -> int:
    """How long a voter may be silent: not so long if another peer has come under its name."""
    if seat.name not in heirs:
        return view.away_ms
    return max(view.silent_ms, view.away_ms // HEIR_SHARE)


def _odd(count: int) -> int:
    return max(1, count - 1 + count % 2)


def _best(ready: Sequence[Seat], here: Sequence[Seat]) -> Promote:
    crowds = _crowds(here)
    return Promote(min(ready, key=lambda s: (not s.chosen, crowds[s.domain], s.peer)).peer)


def _worst(voters: Sequence[Seat], view: View) -> Demote | None:
    worst = _worst_of(voters, view)
    left = [seat for seat in voters if seat is not worst]
    return Demote(worst.peer) if answering(left, view) * 2 > len(left) else None


def _worst_of(voters: Sequence[Seat], view: View) -> Seat:
    crowds = _crowds(voters)
    return min(
        voters,
        key=lambda seat: (
            seat.silent_ms < view.away_ms,
            seat.answered and seat.silent_ms < view.silent_ms,
            seat.chosen,
            seat.leads,
            -crowds[seat.domain],
            seat.peer,
        ),
    )


def _chosen(voters: Sequence[Seat], ready: Sequence[Seat], here: Sequence[Seat]) -> Promote | None:
    chosen = [seat for seat in ready if seat.chosen]
    if not chosen or all(seat.chosen for seat in voters):
        return None
    return _best(chosen, here)


def _spread(voters: Sequence[Seat], ready: Sequence[Seat], view: View) -> Promote | None:
    """Once nothing has changed for a while: zones that come and go move nobody."""
    if view.unchanged_ms < view.away_ms:
        return None
    crowds = _crowds(voters)
    for seat in sorted(ready, key=lambda s: (crowds[s.domain], s.peer)):
        # Who would be demoted then: no promotion that only leads to another one.
        worst = _worst_of([*voters, msgspec.structs.replace(seat, votes=True)], view)
        if crowds[worst.domain] - crowds[seat.domain] >= 2:
            return Promote(seat.peer)
    return None


def _crowds(seats: Sequence[Seat]) -> Counter[str]:
    return Counter(seat.domain for seat in seats)
