"""The feeder's side of followers: what each of them is told, and who is there (ADR 0034).

What an entry changes is noted once, by peer; a follower that it doesn't concern costs nothing. A
follower is told what it owns now, not what happened: what piles up while nothing is said is one
message, nothing can be missed between two feeders, and saying it twice changes nothing.

It refuses to tell a follower of a ledger index that lies before one which it has seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.raft.group import VOTERS_WANTED
from p2psched.core.state import LedgerState
from p2psched.model.commands import (
    DrainMode,
    Event,
    GivenBack,
    Granted,
    JobEnded,
    Outcome,
    PeerCameUp,
    PeerDrains,
    PeerWentDown,
    Revoked,
    Stamped,
)
from p2psched.model.execution import Committed
from p2psched.model.feed_messages import (
    FedGrant,
    FedJob,
    Feed,
    FeedElsewhere,
    FeedMessage,
    Follow,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.limits import ENTRY_BYTES_MAX
from p2psched.model.messages import Forward
from p2psched.model.moves import Moved
from p2psched.model.once import Doubted, Once
from p2psched.model.raft import Member, Membership
from p2psched.model.steal_messages import StealMessage

if TYPE_CHECKING:
    from p2psched.core.machine import Machine

SPARES: Final = 2  # hold the whole ledger and don't vote
LEVEL: Final = 3  # of features: from there on all peers know what followers are
HEARD_MS: Final = 1_000  # a follower that was silent for longer is not heard any more
SILENT_MS: Final = 5_000  # after it nothing is kept for a follower
FOLLOWERS_MAX: Final = 1_024  # of one feeder; others are sent elsewhere
OUTCOMES_MAX: Final = 1_024  # that wait for one follower; it asks again for those beyond


SaidMessage = FeedMessage | StealMessage | Forward


class Say(msgspec.Struct, frozen=True):
    """A message for one peer, which may be lost."""

    to: PeerId
    message: SaidMessage


def members_of(group: Membership) -> tuple[Member, ...]:
    return (*group.voters, *group.learners)


def holders_wanted(group: Membership) -> int:
    """How many peers should hold the whole ledger."""
    return (group.wanted or VOTERS_WANTED) + SPARES


def holders(group: Membership, state: LedgerState) -> int:
    """How many do, but for those that are down."""
    rows = (state.peers.get(member.peer) for member in members_of(group))
    return sum(row is None or row.live for row in rows)


class _Fed:
    """One follower."""

    __slots__ = (
        "cursor",
        "dirty",
        "group",
        "heard_ms",
        "known",
        "number",
        "outcomes",
        "turn",
        "whole",
    )

    def __init__(self, follow: Follow) -> None:
        self.number = follow.number
        self.turn = 0
        self.cursor = follow.cursor
        self.known = dict.fromkeys(follow.jobs)  # it has the specs of these jobs
        self.dirty: dict[JobId, None] = {}  # jobs of which it owns more or less than it was told
        self.outcomes: list[tuple[int, Outcome]] = []
        self.whole = True  # it is to be told everything
        self.group: Membership | None = None  # that it was told
        self.heard_ms = 0


class Feeder:
    """Of one peer that holds the whole ledger. Says nothing before somebody follows it."""

    def __init__(self, me: PeerId, machine: Machine) -> None:
        self._me = me
        self._machine = machine
        self._fed: dict[PeerId, _Fed] = {}
        self._known_by: dict[JobId, dict[PeerId, None]] = {}  # who has the spec of a job
        self._ready: dict[PeerId, None] = {}  # who is to be told something
        self._group = Membership()
        self._leader: PeerId | None = None
        self._is_led = False
        self._out: list[Say] = []
        self.shut: frozenset[PeerId] = frozenset()  # in quarantine

    # --- what comes in ---

    def on_follow(self, now_ms: int, peer: PeerId, follow: Follow) -> None:
        fed = self._fed.get(peer)
        if fed is not None and follow.number < fed.number:
            return  # it has asked anew since
        # One that goes on with what this feeder has forgotten since would miss what it knew.
        is_forgotten = follow.turn > 0 and (fed is None or fed.number != follow.number)
        if is_forgotten or self._turns_away(peer):
            self._forget(peer)
            self._out.append(Say(peer, self._elsewhere(follow.number)))
            return
        if fed is None or follow.number != fed.number:
            self._forget(peer)
            fed = self._fed[peer] = _Fed(follow)
            for job in fed.known:
                self._known_by.setdefault(job, {})[peer] = None
        fed.heard_ms = now_ms
        fed.cursor = max(fed.cursor, follow.cursor)
        self._ready[peer] = None

    def on_clock(self, now_ms: int, group: Membership, leader: PeerId | None, *, led: bool) -> None:
        """`led`: the leader was heard lately. Without one a follower is better off elsewhere."""
        if group != self._group:
            self._ready.update(dict.fromkeys(self._fed))
        self._group, self._leader, self._is_led = group, leader, led
        for peer, fed in list(self._fed.items()):
            if now_ms - fed.heard_ms > SILENT_MS:
                self._forget(peer)
            elif self._turns_away(peer):
                self._out.append(Say(peer, self._elsewhere(fed.number)))
                self._forget(peer)

    def on_applied(
        self, batch: Committed, outcomes: Iterable[Outcome], events: Iterable[Stamped]
    ) -> None:
        """Note whom an entry concerns. Costs what is in it, however many follow."""
        if not self._fed:
            return
        for envelope, outcome in zip(batch.envelopes, outcomes, strict=True):
            fed = self._fed.get(envelope.proposer)
            if fed is not None and len(fed.outcomes) < OUTCOMES_MAX:
                fed.outcomes.append((envelope.request, outcome))
                self._ready[envelope.proposer] = None
                if isinstance(envelope.command, Once):  # whether its tasks may start
                    self._note(envelope.proposer, envelope.command.job)
        for stamped in events:
            self._on_event(stamped.event)

    def _on_event(self, event: Event) -> None:
        match event:
            case (
                Granted(job=job, peer=peer)
                | Revoked(job=job, peer=peer)
                | GivenBack(job=job, peer=peer)
                | Moved(job=job, peer=peer)
                | Doubted(job=job, peer=peer)
            ):
                self._note(peer, job)
            case JobEnded(job=job):
                for peer in self._known_by.get(job, ()):
                    self._note(peer, job)
            case PeerWentDown(peer=peer) | PeerDrains(peer=peer) if peer in self._fed:
                self._ready[peer] = None
            case PeerCameUp(info=info) if info.peer in self._fed:
                self._fed[info.peer].whole = True  # its grants have another incarnation now
                self._ready[info.peer] = None
            case _:
                pass

    def on_restored(self) -> None:
        """What was missed here was missed for all of them."""
        for fed in self._fed.values():
            fed.whole = True
        self._ready.update(dict.fromkeys(self._fed))

    def _note(self, peer: PeerId, job: JobId) -> None:
        fed = self._fed.get(peer)
        if fed is not None:
            fed.dirty[job] = None
            self._ready[peer] = None

    # --- who is fed here ---

    def _turns_away(self, peer: PeerId) -> bool:
        if not self._is_led or (len(self._fed) >= FOLLOWERS_MAX and peer not in self._fed):
            return True
        if self._leader != self._me:
            return False
        others = (m.peer for m in members_of(self._group) if m.peer != self._me)
        return any(map(self._machine.is_up, others))

    def _elsewhere(self, number: int) -> FeedElsewhere:
        return FeedElsewhere(number, self._group, self._leader)

    def _forget(self, peer: PeerId) -> None:
        fed = self._fed.pop(peer, None)
        self._ready.pop(peer, None)
        for job in fed.known if fed is not None else ():
            self._forget_known(job, peer)

    def _forget_known(self, job: JobId, peer: PeerId) -> None:
        knowers = self._known_by[job]
        del knowers[peer]
        if not knowers:
            del self._known_by[job]

    def heard(self, now_ms: int) -> set[PeerId]:
        return {peer for peer, fed in self._fed.items() if now_ms - fed.heard_ms <= HEARD_MS}

    @property
    def followers(self) -> int:
        return len(self._fed)

    # --- what goes out ---

    def on_round(self) -> list[Say]:
        """Tell each follower what has come up for it since the last round."""
        if not self._ready and not self._out:
            return []
        index = self._machine.applied_index
        ready = [peer for peer in self._ready if self._fed[peer].cursor <= index]
        if ready:
            for peer, jobs in self._owned(ready).items():
                self._tell(peer, self._fed[peer], jobs)
                del self._ready[peer]
        out, self._out = self._out, []
        return out

    def _owned(self, ready: Collection[PeerId]) -> dict[PeerId, list[FedJob]]:
        """What each is to be told of jobs. One look at the grants of a job, whoever asks."""
        told: dict[PeerId, list[FedJob]] = {peer: [] for peer in ready}
        asking: dict[JobId, dict[PeerId, None]] = {}
        whole = [peer for peer in ready if self._fed[peer].whole]
        for peer in ready:
            fed = self._fed[peer]
            for job in fed.known if fed.whole else fed.dirty:
                asking.setdefault(job, {})[peer] = None
        if whole:
            for owned in self._machine.jobs_with_grants():
                parts = (owned.grants, owned.unknown, owned.backups)
                owners = {held.peer for part in parts for held in part.values()}
                asking.setdefault(owned.id, {}).update((p, None) for p in whole if p in owners)
        for name, peers in asking.items():
            job_now = self._machine.jobs.get(name)
            if job_now is None or job_now.ended:
                for peer in peers:
                    told[peer].append(FedJob(name, (), ended=True))
                continue
            grants = _grants_of(job_now, peers)
            for peer in peers:
                told[peer].append(self._fed_job(peer, job_now, grants.get(peer, ())))
        return told

    def _fed_job(self, peer: PeerId, job: Job, grants: Iterable[HeldGrant]) -> FedJob:
        fed = tuple(
            FedGrant(
                held.grant,
                held.incarnation,
                tuple(job.attempts(held.tasks)),
                held.token,
                held.moves,
                held.started,
                held.stays,
                job.spared & held.tasks,
            )
            for held in grants
        )
        unknown = tuple((h.grant, h.tasks) for h in job.unknown.values() if h.peer == peer)
        spec = None if job.id in self._fed[peer].known else job.full
        return FedJob(job.id, fed, spec, unknown=unknown)

    def _tell(self, peer: PeerId, fed: _Fed, jobs: list[FedJob]) -> None:
        """In as many messages as it takes."""
        row = self._machine.peers.get(peer)
        group = self._group if fed.group != self._group else None
        whole, outcomes = fed.whole, tuple(fed.outcomes)
        pieces = list(_pieces(jobs))
        for number, piece in enumerate(pieces, 1):
            fed.turn += 1
            is_first = number == 1
            feed = Feed(
                number=fed.number,
                turn=fed.turn,
                index=self._machine.applied_index,
                stamp_ms=self._machine.stamp_ms,
                incarnation=row.info.incarnation if row is not None else 0,
                live=row is not None and row.live,
                jobs=piece,
                outcomes=outcomes if is_first else (),
                whole=whole and is_first,
                more=number < len(pieces),
                group=group if is_first else None,
                leader=self._leader,
                drain=row.drain if row is not None else DrainMode.OFF,
                short=holders(self._group, self._machine) < holders_wanted(self._group),
                level=self._machine.level,
                pulls=self._machine.awaits_pull,
                shut=tuple(sorted(self.shut)),
            )
            self._out.append(Say(peer, feed))
        for job in jobs:
            if job.spec is not None:
                fed.known[job.job] = None
                self._known_by.setdefault(job.job, {})[peer] = None
            elif job.ended and job.job in fed.known:
                del fed.known[job.job]
                self._forget_known(job.job, peer)
        fed.group = self._group
        fed.whole = False
        fed.outcomes.clear()
        fed.dirty.clear()


def _grants_of(job: Job, peers: Collection[PeerId]) -> Mapping[PeerId, list[HeldGrant]]:
    """A backup of which some has become the owner's stands in both places, under one grant."""
    found: dict[PeerId, list[HeldGrant]] = {}
    for held in job.grants.values():
        if held.peer in peers:
            more = job.backups.get(held.grant)
            whole = held if more is None else held.part(held.tasks | more.tasks)
            found.setdefault(held.peer, []).append(whole)
    for held in job.backups.values():
        if held.peer in peers and held.grant not in job.grants:
            found.setdefault(held.peer, []).append(held)
    return found


def _pieces(jobs: list[FedJob]) -> Iterable[tuple[FedJob, ...]]:
    """Each fits a message; one at least."""
    piece: list[FedJob] = []
    size = 0
    for job in jobs:
        more = len(msgspec.msgpack.encode(job))
        if piece and size + more > ENTRY_BYTES_MAX:
            yield tuple(piece)
            piece, size = [], 0
        piece.append(job)
        size += more
    yield tuple(piece)
