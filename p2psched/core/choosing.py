"""Who gets which tasks of a job that says something of it: a policy, labels, GPUs, memory, company.

The coordinator's; jobs that say nothing go by `placement` directly. What it proposes is advice, as
all placements: the fold grants only what fits (`fitting`).
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core import fitting
from p2psched.core.decisions import Decisions, Record
from p2psched.core.jobs import Job
from p2psched.core.kinds import blob_key, kind_of
from p2psched.core.placement import (
    SHARES_PER_SLOT,
    Candidate,
    cut,
    owned_by_peer,
    room_in,
    share_counts,
)
from p2psched.core.policies.adaptive import Leans, leans_of
from p2psched.core.policies.base import Ask, Notes, Policy, Shares
from p2psched.core.policies.measured import Measuring
from p2psched.core.policies.registry import ADAPTIVE, POLICIES
from p2psched.core.policies.speeds import Speeds, speeds_of
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import FunctionWork, Work
from p2psched.model.limits import JOB_TASKS_MAX
from p2psched.model.taskset import TaskSet

LOOK_MS: Final = 200  # gossip is older than that
LEANS_MAX: Final = 1_000
DOUBTED_MAX: Final = 1_000  # jobs; the oldest are trusted again
SPREAD_MAX: Final = 256  # tasks that are spread in one round
# While nothing of a job can be placed, slots are spared so long, and no longer: for other programs,
# and because others are quicker.
SPARED_MS: Final = 2_000
Chosen = list[tuple[Candidate, TaskSet]]


class Chooser:
    def __init__(
        self, me: PeerId, machine: LedgerState, policies: Mapping[str, Policy] = POLICIES
    ) -> None:
        self.policies = policies
        self.decisions = Decisions()
        self.measuring = Measuring()
        self._machine = machine
        self._rng = random.Random(f"placement {me}")
        self._notes: dict[str, Notes] = {}
        self._promised: dict[PeerId, tuple[int, int]] = {}  # GPUs and memory, in this round
        self._leans: dict[Hashable, Leans] = {}
        self._looked_ms = 0
        self._speeds: Speeds | None = None
        self._everybody: Sequence[Candidate] = ()
        self._reserved: dict[PeerId, tuple[int, int]] = {}  # for a job that waits: its turn
        self._doubted: dict[JobId, None] = {}  # whose policy placed nothing though it could
        self._waiting: dict[JobId, int] = {}  # nothing of it could be placed since then

    def look(self, candidates: Sequence[Candidate], now_ms: int) -> None:
        """Before a round: these are all there are, with what gossip says of them."""
        if self._speeds is None or now_ms - self._looked_ms >= LOOK_MS:
            self._speeds = speeds_of(candidates)
            self._everybody = list(candidates)
            self._looked_ms = now_ms
            self._leans.clear()

    def leans(self, work: Work) -> Leans:
        """What gossip makes of peers for such tasks, as of some moments ago: many jobs are one call
        of the same few functions."""
        assert self._speeds is not None, "look first"
        key = work.path or work.code if isinstance(work, FunctionWork) else work.argv
        known = self._leans.get(key)
        if known is None:
            if len(self._leans) >= LEANS_MAX:
                self._leans.clear()
            known = leans_of(kind_of(work), (), self._everybody, self._speeds)
            self._leans[key] = known
        return known

    def begin_round(self) -> None:
        """What was decided before is applied, or lost."""
        if self._waiting:
            unplaced = self._machine.unplaced
            self._waiting = {name: ms for name, ms in self._waiting.items() if name in unplaced}
        self._promised.clear()
        self._reserved.clear()

    def policy_of(self, name: str) -> tuple[Policy, str]:
        """And what is to be said of it."""
        policy = self.policies.get(name) if name else ADAPTIVE
        if policy is None:
            return ADAPTIVE, f"the coordinator has no policy {name!r}: adaptive stands in for it"
        return policy, ""

    def doubt(self, jobs: Iterable[JobId]) -> None:
        """Their policy places nothing though somebody has nothing to do: adaptive stands in."""
        for job in jobs:
            self._doubted[job] = None
            if len(self._doubted) > DOUBTED_MAX:
                del self._doubted[next(iter(self._doubted))]

    def _policy_for(self, job: Job) -> tuple[Policy, str]:
        name = job.spec.policy
        if job.id not in self._doubted or not name:
            return self.policy_of(name)
        said = f"policy {name} placed nothing for long, though a peer had nothing to do"
        return ADAPTIVE, f"{said}: adaptive stands in for it"

    def is_early(self, job: Job) -> bool:
        """Its tasks go to peers that have no room for them yet."""
        return not self._policy_for(job)[0].is_late

    # --- whether ---

    def room(self, job: Job, row: PeerRow) -> int:
        """How many more tasks of the job the peer may own, after what this round has given it."""
        peer = row.info.peer
        needs = job.spec.needs
        if needs is not None and (needs.gpus or needs.memory_mib):
            if self._reserved.get(peer, job.turn) < job.turn:
                return 0
            gpus, memory_mib = self._promised.get(peer, (0, 0))
            return fitting.room(self._machine, job, row, gpus=gpus, memory_mib=memory_mib)
        return fitting.room(self._machine, job, row)

    def free(
        self, jobs: Sequence[Job], candidates: Sequence[Candidate], most: int, *, is_open: bool
    ) -> list[Job]:
        """Those that can go somewhere now, for what they need; so many at most. What the others
        wait for is reserved."""
        self.begin_round()
        found: list[Job] = []
        blocked: list[Job] = []
        for job in jobs:
            if not is_open and not self.is_early(job):
                continue
            (found if self.can_go(job, candidates) else blocked).append(job)
            if len(found) >= most:
                break
        self.reserve(blocked, candidates)
        return found

    def can_go(self, job: Job, candidates: Sequence[Candidate]) -> bool:
        """True if a peer that takes tasks could own one of it now. Such jobs are asked for in
        order; what has to wait for GPUs holds up nobody who needs none."""
        if job.spec.needs is None and not self._machine.apart:
            return True
        rows = self._machine.peers
        return any(self.room(job, rows[c.peer]) > 0 for c in candidates)

    def reserve(self, jobs: Iterable[Job], candidates: Sequence[Candidate]) -> None:
        """The oldest job that waits for GPUs or memory keeps younger ones off one peer that has
        them, or those that need little would take them for ever."""
        for job in jobs:
            able = self.able(job, candidates)
            if able:
                kept = min(able, key=lambda c: (c.load_us / c.slots, c.peer))
                self._reserved[kept.peer] = job.turn
                return

    def able(self, job: Job, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that have what it needs, be it in use or not."""
        rows = [(c, self._machine.peers[c.peer]) for c in candidates]
        return [c for c, row in rows if fitting.fits(job.spec, row.info.slots, row.offers)]

    # --- who ---

    def share(
        self, job: Job, tasks: TaskSet, candidates: Sequence[Candidate], at_ms: int
    ) -> Chosen:
        """What of `tasks` goes where, of these that take some."""
        spec = job.spec
        fitting_ = [c for c in candidates if c.slots >= spec.cpus]
        most: dict[PeerId, int] = {}
        if spec.needs is not None or self._machine.apart:
            rows = self._machine.peers
            rooms = {c.peer: self.room(job, rows[c.peer]) for c in fitting_}
            most = {peer: room for peer, room in rooms.items() if room < JOB_TASKS_MAX}
            fitting_ = [c for c in fitting_ if rooms[c.peer] > 0]
        if not fitting_ or not tasks.ranges:
            return []
        ask = self.ask(job, len(tasks), most)
        policy, note = self._policy_for(job)
        if spec.needs is not None and spec.needs.spread:
            counts = self._spread(job, ask, fitting_, policy)
        else:
            counts, failed = self._by_liking(job, ask, fitting_, policy)
            note = note or failed
        shares = cut(tasks, counts)
        if self._waits_long(job, at_ms, placed=bool(shares)):
            counts = self._at_last(job, ask, fitting_, policy)
            shares = cut(tasks, counts)
        if shares:
            self._promise(job, counts)
            record = Record(
                *(job.id, shares, fitting_, at_ms, ask.estimate_us, ask.cpus),
                *(policy.name, note, ask),
            )
            self.decisions.note(record)
        return shares

    def _at_last(
        self, job: Job, ask: Ask, candidates: Sequence[Candidate], policy: Policy
    ) -> Shares:
        """What has waited long: no slot is spared for others, and nobody is waited for because it
        is quicker, and should be free soon: that it isn't, is known by now."""
        counts: Shares = []
        if self._speeds is not None and self._speeds.left:
            whole = msgspec.structs.replace(ask, whole=True)
            counts, _ = self._by_liking(job, whole, candidates, policy)
        if counts or policy is not ADAPTIVE or (job.spec.needs and job.spec.needs.spread):
            return counts
        return share_counts(
            *(ask.count, [c for c in candidates if c.owned < c.slots // ask.cpus]),
            estimate_us=ask.estimate_us,
            cpus=ask.cpus,
            owned_here=ask.owned_here,
            most=ask.most,
        )

    def _waits_long(self, job: Job, at_ms: int, *, placed: bool) -> bool:
        """Nothing of it could be placed for so long that it is placed wherever there is room."""
        if placed:
            self._waiting.pop(job.id, None)
            return False
        return at_ms - self._waiting.setdefault(job.id, at_ms) >= SPARED_MS

    def note(
        self,
        job: JobId,
        shares: Chosen,
        candidates: Sequence[Candidate],
        *,
        at_ms: int,
        estimate_us: int,
        cpus: int,
    ) -> None:
        """What was decided by `placement` alone, for who asks why."""
        self.decisions.note(Record(job, shares, candidates, at_ms, estimate_us, cpus))

    def ask(self, job: Job, count: int, most: Mapping[PeerId, int]) -> Ask:
        assert job.full is not None
        return Ask(
            job=job.id,
            count=count,
            estimate_us=job.estimate_us or self._machine.estimate_us,
            cpus=job.spec.cpus,
            owned_here=owned_by_peer(job),
            kind=kind_of(job.full.work),
            blobs=tuple((blob_key(ref), ref.size) for ref in job.spec.blobs),
            most=most,
            measured=self.measuring.peers,
            now_ms=self._machine.stamp_ms,
            is_guess=not job.estimate_us,
        )

    def _by_liking(
        self, job: Job, ask: Ask, candidates: Sequence[Candidate], policy: Policy
    ) -> tuple[Shares, str]:
        """Those with the preferred labels first, the others for what these have no room for."""
        tiers: dict[int, list[Candidate]] = {}
        rows = self._machine.peers
        for candidate in candidates:
            liking = fitting.liking(job.spec, rows[candidate.peer].offers)
            tiers.setdefault(liking, []).append(candidate)
        shares: Shares = []
        left, note = ask.count, ""
        for liking in sorted(tiers, reverse=True):
            more, failed = self._by_policy(
                msgspec.structs.replace(ask, count=left), tiers[liking], policy
            )
            note = note or failed
            shares += more
            left -= sum(count for _, count in more)
            if not left:
                break
        return shares, note

    def _by_policy(
        self, ask: Ask, candidates: Sequence[Candidate], policy: Policy
    ) -> tuple[Shares, str]:
        notes = self._notes.get(policy.name)
        if notes is None:
            notes = self._notes[policy.name] = Notes(self._rng)
        try:
            return policy.share(ask, candidates, notes), ""
        except Exception as error:  # a user's function: the work goes on without it
            if policy.name in POLICIES:
                raise
            said = f"policy {policy.name} failed ({error!r}): adaptive stands in for it"
            return ADAPTIVE.share(ask, candidates, notes), said

    def _spread(
        self, job: Job, ask: Ask, candidates: Sequence[Candidate], policy: Policy
    ) -> Shares:
        """One after another, each where the fewest of the job are, of those that have room."""
        assert job.spec.needs is not None
        key = job.spec.needs.spread
        rows = self._machine.peers
        domains: dict[str, int] = {}
        for peer, owned in ask.owned_here.items():
            domain = rows[peer].offers.label(key) if peer in rows else ""
            domains[domain] = domains.get(domain, 0) + owned
        where = {c.peer: rows[c.peer].offers.label(key) for c in candidates}
        rooms = {c.peer: _room(ask, c, candidates, is_late=policy.is_late) for c in candidates}
        given: dict[PeerId, int] = {}
        open_ = [c for c in candidates if rooms[c.peer] > 0]

        def rank(c: Candidate) -> tuple[float, float, PeerId]:
            load_us = c.load_us + given.get(c.peer, 0) * ask.estimate_us * ask.cpus
            return domains.get(where[c.peer], 0), load_us / c.slots, c.peer

        for _ in range(min(ask.count, SPREAD_MAX)):
            if not open_:
                break
            chosen = min(open_, key=rank)
            domain = where[chosen.peer]
            given[chosen.peer] = given.get(chosen.peer, 0) + 1
            domains[domain] = domains.get(domain, 0) + 1
            if given[chosen.peer] >= rooms[chosen.peer]:
                open_.remove(chosen)
        return [(c, given[c.peer]) for c in candidates if c.peer in given]

    def _promise(self, job: Job, counts: Shares) -> None:
        gpus, memory_mib = fitting.weight_of(job)
        for candidate, count in counts if gpus or memory_mib else ():
            before = self._promised.get(candidate.peer, (0, 0))
            now = before[0] + gpus * count, before[1] + memory_mib * count
            self._promised[candidate.peer] = now


def _room(ask: Ask, c: Candidate, candidates: Sequence[Candidate], *, is_late: bool) -> int:
    if not is_late:
        return ask.room(c)
    fair = -(-ask.count // sum(other.slots for other in candidates))
    quota = -(-fair // SHARES_PER_SLOT)
    room = room_in(c, quota, ask.owned_here.get(c.peer, 0), ask.estimate_us, ask.cpus)
    return min(room, ask.most.get(c.peer, room))
