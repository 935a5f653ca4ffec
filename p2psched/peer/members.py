"""What people may do with the members of the group: remove, promote and demote a peer, and say how
many voters there shall be. The leader decides; others pass it on. All is safe to repeat.

It refuses what would leave nobody who votes, or no majority that answers. Whoever shall vote and
has not caught up is a learner in the answer: the caller asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.core.levels import group_refusal
from p2psched.core.machine import Machine
from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import MemberEvent, RemoveMember, WantVoters, Wish
from p2psched.core.raft.group import VOTERS_MAX, VOTERS_WANTED, Seat, answering
from p2psched.model.config import Config
from p2psched.model.errors import (
    NotFound,
    P2PSchedError,
    Refused,
    Unavailable,
    UsageError,
    from_wire,
)
from p2psched.model.ids import PeerId, short
from p2psched.model.member_messages import (
    ChangeMember,
    GetStanding,
    MemberAnswer,
    MemberCall,
    MemberChanged,
    SetVoters,
    Standing,
    VotersSet,
)
from p2psched.peer.engines import embedded
from p2psched.peer.others import Others
from p2psched.peer.raft_loop import RaftLedger
from p2psched.ports.engine import Engine

PATIENCE_S: Final = 5.0  # for a leader, and for what it was asked to be committed
POLL_S: Final = 0.02
PREFIX_LEN_MIN: Final = 4  # of an id: shorter is a name
CHANGES: Final = ("remove", "promote", "demote")


def away_ms(config: Config, machine: Machine) -> Callable[[], int | None]:
    """What the engine is told: after which silence it may replace a voter, if it may at all."""
    return lambda: None if group_refusal(machine) else config.replace_ms


class Members:
    """A part of the API, see `peer.api`."""

    def __init__(self, me: PeerId, machine: Machine, ledger: Engine, others: Others) -> None:
        self._me = me
        self._machine = machine
        self._ledger = ledger
        self._others = others

    @property
    def _group(self) -> RaftLedger:
        """Raises Refused if its members never change."""
        return embedded(self._ledger, "has the members that all its peers were started with")

    @property
    def _raft(self) -> Raft:
        return self._group.engine.raft

    async def answer(self, body: MemberCall) -> MemberAnswer:
        """Raises P2PSchedError for the caller."""
        match body:
            case GetStanding():
                return Standing(self._ledger.engine.raft.term, self._machine.applied_index)
            case ChangeMember(change=change) if change not in CHANGES:
                raise UsageError(f"a change is one of {', '.join(CHANGES)}, not {change!r}")
            case SetVoters(count=count) if not 0 <= count <= VOTERS_MAX or (
                count and not count % 2
            ):
                raise UsageError(f"voters are 1, 3, 5 or 7, not {count}; 0 for what is usual")
            case _:
                return await self._as_leader(body)

    async def _as_leader(self, body: ChangeMember | SetVoters) -> MemberAnswer:
        """Until it is done. Asked again after a change of leaders, it is a repeat."""
        asked = leads = False
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        error: P2PSchedError = Unavailable("no leader is known just now", retry_after_s=0.3)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    leader = self._ledger.coordinator()
                    leads = leader == self._me and self._raft.is_ready_leader
                    if leads or asked:  # a leader that removes itself leads no longer
                        answer = self._look(body, asked=asked)
                        if answer is not None:
                            return answer
                    if leads and (asked or not self._is_so(body, asked=False)):
                        waited_ms = 1000 * (loop.time() - began_s)
                        if self._raft.may_change and self._is_safe(body, waited_ms):
                            self._group.change_members(self._event(body))
                            asked = True
                    elif not leads and leader not in (None, self._me):
                        assert leader is not None
                        try:
                            return self._passed_on(await self._others.call(leader, body), asked)
                        except Unavailable as exc:
                            error = exc
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            done = self._look(body, asked=asked, patient=False) if asked or leads else None
            if done is not None:
                return done
            raise error from None

    def _passed_on(self, answer: object, asked: bool) -> MemberAnswer:
        assert isinstance(answer, MemberChanged | VotersSet)
        return msgspec.structs.replace(answer, changed=answer.changed or asked)

    def _look(
        self, body: ChangeMember | SetVoters, *, asked: bool, patient: bool = True
    ) -> MemberAnswer | None:
        """The answer, once it is so and committed. Raises what is to be refused."""
        refusal = group_refusal(self._machine)
        if refusal is not None:
            raise from_wire(refusal.code, refusal.message, 1000)
        members, is_settled = self._raft.membership, self._raft.is_settled
        voters = len(members.voters)
        if isinstance(body, SetVoters):
            done = self._is_so(body, asked=asked) and is_settled
            wanted = members.wanted or VOTERS_WANTED
            return VotersSet(asked, wanted, voters) if done else None
        peer, name = self._find(body.peer)
        is_voter, wish = members.is_voter(peer), members.wish(peer)
        is_gone, is_so = self._is_gone(peer), self._is_so(body, asked=asked)
        if not patient and body.change == "promote":
            is_so = wish is True
        if not is_so:
            if not asked:
                self._refuse(body.change, peer, name)
            return None
        if patient and voters % 2 == 0 and self._raft.is_leader:
            return None  # the group goes on to an odd number by itself
        role = "removed" if is_gone else "learner"
        if is_voter:
            role = "leader" if peer == self._ledger.coordinator() else "voter"
        match = self._raft.matches().get(peer)
        lag = 0 if match is None or role != "learner" else max(0, self._raft.commit - match)
        return MemberChanged(peer, name, asked, role, voters, lag) if is_settled else None

    def _is_gone(self, peer: PeerId) -> bool:
        return peer in self._raft.membership.removed or peer in self._machine.gone

    def _is_so(self, body: ChangeMember | SetVoters, *, asked: bool) -> bool:
        """What is wanted, though it may not be committed, and the group may go on changing: nobody
        changes it who asks for it then. Raises NotFound."""
        members = self._raft.membership
        if isinstance(body, SetVoters):
            return members.wanted == body.count
        peer, _ = self._find(body.peer)
        is_voter, wish = members.is_voter(peer), members.wish(peer)
        match body.change:
            case "remove":
                return self._is_gone(peer)
            case "demote":
                return wish is False and not is_voter
            case _:
                return is_voter and (wish is not None or not asked)

    def _event(self, body: ChangeMember | SetVoters) -> Callable[[int, int], MemberEvent]:
        if isinstance(body, SetVoters):
            return lambda now_ms, wall_ms: WantVoters(now_ms, wall_ms, body.count)
        peer, _ = self._find(body.peer)
        if body.change == "remove":
            return lambda now_ms, wall_ms: RemoveMember(now_ms, wall_ms, peer)
        votes = body.change == "promote"
        return lambda now_ms, wall_ms: Wish(now_ms, wall_ms, peer, votes)

    # --- who is meant -----------------------------------------------------------------------------

    def _find(self, text: str) -> tuple[PeerId, str]:
        """A member, or one that was removed: asking twice is fine. Raises NotFound."""
        members = self._raft.membership
        known = {m.peer: m.name for m in (*members.voters, *members.learners)}
        rows = self._machine.peers
        gone = self._machine.gone | {
            peer: rows[peer].info.name for peer in members.removed if peer in rows
        }
        follow = {
            peer: row.info.name
            for peer, row in rows.items()
            if peer not in known and peer not in members.removed
        }
        for names in (known, follow, gone):
            found = [peer for peer, name in names.items() if name == text] or [
                peer
                for peer in names
                if len(text) >= PREFIX_LEN_MIN and peer.startswith(text.lower())
            ]
            if len(found) > 1 and names is not gone:
                listed = ", ".join(sorted(map(short, found)))
                raise UsageError(f"{text!r} fits {len(found)} peers: say which by its id: {listed}")
            if found:
                return found[-1], names[found[-1]]
        raise NotFound(f"{text!r} is no peer of this cluster: `p2psched peers` lists them")

    # --- what is refused --------------------------------------------------------------------------

    def _is_safe(self, body: ChangeMember | SetVoters, waited_ms: float) -> bool:
        """Whoever died just now doesn't count as silent yet: a majority of those who stay has to
        have been heard since we were asked."""
        if isinstance(body, SetVoters) or body.change == "promote":
            return True
        peer, _ = self._find(body.peer)
        if not self._raft.membership.is_voter(peer):
            return True
        ages_ms = {self._me: 0, **self._group.contacts()}  # not of the step before: that is old
        left = [m.peer for m in self._raft.membership.voters if m.peer != peer]
        return 2 * sum(ages_ms.get(one, waited_ms) < waited_ms for one in left) > len(left)

    def _refuse(self, change: str, peer: PeerId, name: str) -> None:
        members = self._raft.membership
        if change != "remove" and members.member(peer) is None:
            raise Refused(
                f"{name} follows a feed and holds no ledger: start it with --no-follow first, and "
                "it becomes a learner"
            )
        view = self._raft.view(0)
        voters = [seat for seat in view.seats if seat.votes]
        if change == "promote":
            most = min(view.wanted, len(voters))
            if len(voters) >= view.wanted and all(seat.chosen for seat in voters):
                raise Refused(
                    f"{most} voters are wanted, and each of them was promoted: demote one of them, "
                    "or want more with `p2psched peer voters`"
                )
            return
        if not members.is_voter(peer):
            return
        if len(voters) == 1:
            raise Refused(
                f"{name} is the only voter, and without it nobody leads: promote another peer first"
            )
        left = [seat for seat in voters if seat.peer != peer]
        here = answering(left, view)
        if here * 2 <= len(left):
            raise Refused(
                f"without {name} only {here} of {len(left)} voters would answer, which is no "
                "majority: start the others, or remove one that is gone first"
            )
        if change == "demote" and not any(_may_take_over(seat, peer) for seat in view.seats):
            raise Refused(
                f"no other peer can take the vote of {name}, and {len(voters)} voters stand more "
                "than fewer do: start another peer first, or want fewer with `p2psched peer voters`"
            )


def _may_take_over(seat: Seat, peer: PeerId) -> bool:
    return not seat.votes and seat.may_vote and seat.ready and seat.peer != peer
