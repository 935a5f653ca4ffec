"""The group of a simulated cluster: what a seed draws of it, what people ask of it meanwhile, and
what it must look like in the end (P12): an odd number of voters, as many as are wanted and there
are, all of them up but for one that nobody can replace, and spread over the zones as may be.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from p2psched.core.levels import GROUP_LEVEL
from p2psched.model.ids import PeerId
from p2psched.model.raft import Member, Membership
from p2psched.testing.sim_items import OfMembers, WantHere, WishHere

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster
    from p2psched.testing.sim_peer import SimPeer

WANTED: Final = (0, 0, 1, 3, 5, 7)
USUAL: Final = 5  # what 0 stands for
# Until it is as it shall be, once all peers are up: a few changes, each after the longest time
# that a voter may be away or nothing may change, and elections between them.
GROUP_MS: Final = 120_000


class Group(msgspec.Struct, frozen=True):
    """What is drawn."""

    away_ms: int
    zones: int

    @staticmethod
    def draw(seed: int) -> Group:
        """Apart: all else of the seed is drawn as without."""
        rng = random.Random(f"group {seed}")
        return Group(rng.choice((1_000, 2_000, 4_000)), rng.choice((0, 2, 3)))


class Regrouping:
    """People who say how many voters there shall be, and which peers shall vote or not, as long as
    the faults last. Nobody takes a wish back: what was said last counts."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"regroups {cluster.seed}")
        self._faults = cluster.faults
        if self._faults.regroup_every_ms:
            self._later()

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / self._faults.regroup_every_ms), self._again)

    def _again(self) -> None:
        cluster, rng = self._cluster, self._rng
        if cluster.faults is not self._faults:  # healed otherwise
            return
        item: OfMembers = WantHere(rng.choice(WANTED))
        if rng.random() < 0.7:
            item = WishHere(rng.choice(cluster.peers).id, rng.random() < 0.6)
        unwanted = item.peer if isinstance(item, WishHere) and not item.votes else None
        for peer in cluster.peers:
            if peer.alive and peer.engine.raft.is_leader and bears(cluster, peer, unwanted):
                cluster.happened["asked of the group"] += 1
                cluster.bring(1, peer.number, peer.process, item)
        self._later()


def bears(cluster: SimCluster, leader: SimPeer, unwanted: PeerId | None) -> bool:
    """As a real peer asks before it takes away a vote (`peer/members.py`): a majority of those who
    would be left is there. Who has lost its disk never answers again."""
    membership = leader.engine.raft.membership
    if unwanted is None or not membership.is_voter(unwanted):
        return True
    left = [member.peer for member in membership.voters if member.peer != unwanted]
    return not left or 2 * sum(map(cluster.is_there, left)) > len(left)


def await_group(cluster: SimCluster) -> None:
    """Until it is as it shall be. Raises SimulationError."""
    cluster.run_until(lambda: not group_fault(cluster), within_ms=GROUP_MS, every=25, promise="P12")


def group_fault(cluster: SimCluster) -> str:
    """What the group lacks of what it shall be; empty if it is that, or nobody looks after it."""
    peers, membership = cluster.peers, cluster.referees.members.newest
    levels = [peer.scheduler.machine.level for peer in peers]
    if cluster.away_ms is None or min(levels) < GROUP_LEVEL:
        return ""
    up = {peer.id for peer in peers if peer.alive}
    fit = [m for m in (*membership.voters, *membership.learners) if _may_vote(membership, m)]
    there = [member for member in fit if member.peer in up]
    voters = membership.voters
    learners = [member for member in there if member not in voters]
    gone = [voter for voter in voters if voter.peer not in up]
    if gone and learners:
        return "a voter is gone for good, and nobody takes its place"
    # With one that is gone they bear as much as with two fewer.
    wanted = min(membership.wanted or USUAL, len(there) + (len(gone) == 1))
    wanted -= wanted % 2 == 0
    if len(voters) != max(1, wanted):
        return f"{len(voters)} voters, not {max(1, wanted)}"
    chosen = [member for member in there if membership.wish(member.peer)]
    if any(m in chosen for m in learners) and any(m not in chosen for m in voters):
        return "a peer that shall vote doesn't, and one votes that nobody asked"
    crowds = Counter(map(_domain, voters))
    gain = max(crowds.values()) - min((crowds[_domain(m)] for m in learners), default=len(voters))
    if gain > 1 and not chosen:
        return f"voters of {dict(crowds)}, and a learner elsewhere"
    return ""


def _may_vote(membership: Membership, member: Member) -> bool:
    wish = membership.wish(member.peer)
    if wish is None:
        return member.votes or membership.is_voter(member.peer)
    return wish or membership.is_voter(member.peer)


def _domain(member: Member) -> str:
    return member.zone or member.peer
