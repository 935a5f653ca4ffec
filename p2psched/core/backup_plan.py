"""Which tasks the coordinator has backed up, and where: those of jobs that want replicas, and those
that are late.

It decides on applied state, as all placement does, and on what owners and gossip say. A stale
decision changes nothing: the fold has the last word (`backing`). Backups go where there is room,
apart from who runs the task already: in another zone (or another value of the label that the job is
spread by), and on another machine, as far as there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from p2psched.core import backing, fitting
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.kinds import kind_of
from p2psched.core.machine import Machine
from p2psched.core.placement import BACKLOG_US, Candidate, has_room, with_load
from p2psched.core.stragglers import Late, Stragglers
from p2psched.model.backing import BackUp, LaggingTask
from p2psched.model.commands import GivenBack, Granted, Retried, Revoked, Stamped
from p2psched.model.explain_messages import Decision, WallOf
from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import EMPTY, TaskSet

LOOK_MS: Final = 100  # between two looks while nothing is committed
LOOKED_AT_MAX: Final = 1_000  # jobs in one round; the next one goes on
COMMANDS_MAX: Final = 256  # in one round; the next round goes on
REMEMBERED_MAX: Final = 1_024  # decisions, for who asks why
GROUPS_MAX: Final = 64  # of one job's tasks in one round, by the peers that they are on
FIRST: Final = 3  # late tasks of a job that are begun elsewhere before it is known to pay
IN_VAIN_MAX: Final = 3  # backups of a kind of work that won nothing, beside as many as have
DOMAIN: Final = "zone"  # the label of what fails together, if the job doesn't name one
BETTER: Final = 1.2  # times as long as a backup takes, a late task must still take
SLOWER: Final = 2  # times as long as there: less is noise
FAR_BETTER: Final = 4  # likewise, on a peer that is known to be slower than its own


# After these a job may lack replicas.
_CHANGES: Final = (Granted, Revoked, GivenBack, Retried)


class BackupPlan:
    """Idle unless this peer coordinates."""

    def __init__(self, machine: Machine, takers: Callable[[], list[Candidate]]) -> None:
        """`takers`: who may be given tasks now."""
        self.stragglers = Stragglers(machine)
        self._machine = machine
        self._takers = takers
        self._looked_ms = 0
        self._thin: dict[JobId, None] | None = None  # that may lack replicas; None: any job
        self._is_news = True  # something was granted or taken since the last look
        self._remembered: deque[tuple[BackUp, str, int]] = deque(maxlen=REMEMBERED_MAX)

    def forget(self) -> None:
        """Somebody else coordinates, or this peer begins to."""
        self.stragglers.forget()
        self._thin, self._is_news = None, True

    def on_events(self, events: Iterable[Stamped]) -> None:
        """Of the ledger, while this peer coordinates."""
        self.stragglers.on_events(events)
        backed = self._machine.backed
        for stamped in events:
            event = stamped.event
            if isinstance(event, _CHANGES) and event.job in backed:
                self._is_news = True
                if self._thin is not None:
                    self._thin[event.job] = None

    def round(self, now_ms: int) -> list[BackUp]:
        """To propose now."""
        if not self._is_news and now_ms - self._looked_ms < LOOK_MS:
            return []
        self._looked_ms, self._is_news = now_ms, False
        names = list(self._machine.backed if self._thin is None else self._thin)
        jobs = (self._machine.jobs.get(name) for name in names[:LOOKED_AT_MAX])
        thin = [job for job in jobs if job is not None and job.spec.replicas > 1 and lacking(job)]
        # Until all of them have what they want; those that were not looked at are first.
        self._thin = dict.fromkeys((*names[LOOKED_AT_MAX:], *(job.id for job in thin)))
        if not thin and not self.stragglers.has_news:
            return []
        candidates = self._takers()
        commands, candidates = self._replicate(thin, candidates)
        if self.stragglers.has_news and not self._machine.unplaced:
            commands += self._speculate(now_ms, candidates)
        return commands[:COMMANDS_MAX]

    def _remember(self, command: BackUp, why: str) -> BackUp:
        self._remembered.append((command, why, self._looked_ms))
        return command

    def remembered(self, job: JobId, index: int, by: PeerId, wall_of: WallOf) -> list[Decision]:
        """Why a task was backed up where it is; the newest first."""
        return [
            Decision(
                kind="backed up",
                by=by,
                chosen=command.peer,
                tasks=command.tasks,
                note=why,
                wall_ms=wall_of(at_ms),
            )
            for command, why, at_ms in reversed(self._remembered)
            if command.job == job and index in command.tasks
        ]

    # --- replicas ---

    def _replicate(
        self, jobs: Sequence[Job], candidates: list[Candidate]
    ) -> tuple[list[BackUp], list[Candidate]]:
        commands: list[BackUp] = []
        for job in jobs:
            for peers, tasks in lacking(job):
                while tasks.ranges and len(commands) < COMMANDS_MAX:
                    chosen = self._choose(job, peers, candidates)
                    part = tasks.take(self._room(job, chosen)) if chosen is not None else tasks
                    if chosen is None or not part.ranges:
                        break
                    command = BackUp(job.id, part, chosen.peer, chosen.incarnation)
                    why = f"a replica: the job wants {job.spec.replicas}"
                    commands.append(self._remember(command, why))
                    cost_us = self._cost_us(job) * job.spec.cpus
                    candidates = with_load(candidates, chosen, len(part), cost_us)
                    tasks = tasks - part
        return commands, candidates

    def _choose(
        self, job: Job, peers: frozenset[PeerId], candidates: Sequence[Candidate]
    ) -> Candidate | None:
        """Where tasks that run on these peers may run, too."""
        domains, machines = self._apart(job, peers, candidates)
        rows = self._machine.peers

        def rank(c: Candidate) -> tuple[bool, bool, float, PeerId]:
            same = rows[c.peer].offers.label(domain_of(job)) in domains
            return same, _machine_of(c) in machines, c.load_us / c.slots, c.peer

        able = [c for c in candidates if c.peer not in peers and self._fits(job, c)]
        return min(able, key=rank) if able else None

    def _apart(
        self, job: Job, peers: frozenset[PeerId], candidates: Sequence[Candidate]
    ) -> tuple[set[str], set[int]]:
        """What fails together with these peers; what nobody names is no such thing."""
        rows = self._machine.peers
        domains = {rows[p].offers.label(domain_of(job)) for p in peers if p in rows}
        machines = {_machine_of(c) for c in candidates if c.peer in peers}
        return domains - {""}, machines - {0}

    def _fits(self, job: Job, c: Candidate) -> bool:
        if c.slots < job.spec.cpus or not has_room(c):
            return False
        return fitting.room(self._machine, job, self._machine.peers[c.peer]) > 0

    def _room(self, job: Job, c: Candidate) -> int:
        """How many more tasks it may have."""
        cpus = job.spec.cpus
        ahead = (c.slots * BACKLOG_US - c.load_us) // (self._cost_us(job) * cpus)
        free = c.slots // cpus - c.owned
        most = fitting.room(self._machine, job, self._machine.peers[c.peer])
        return max(0, min(max(ahead, free), most))

    def _cost_us(self, job: Job) -> int:
        return job.estimate_us or self._machine.estimate_us

    # --- tasks that are late ---

    def _speculate(self, now_ms: int, candidates: list[Candidate]) -> list[BackUp]:
        commands: list[BackUp] = []
        given: dict[str, int] = {}
        for late in self.stragglers.late(now_ms):
            task = late.task
            job = self._machine.jobs.get(task.job)
            backup = job.backups.get(task.grant) if job is not None else None
            if job is not None and backup is not None and late.is_late:
                commands += _called_off(job, backup, task)
                continue
            if job is None or not self._may(job, late.owner, task):
                continue
            if self._may_begin(job) <= given.get(job.id, 0):
                continue
            chosen = self._quickest(job, late, candidates)
            if chosen is None:
                continue
            tasks = TaskSet.of(task.index, task.index + 1)
            command = BackUp(job.id, tasks, chosen.peer, chosen.incarnation, speculates=True)
            commands.append(self._remember(command, late.why))
            given[job.id] = given.get(job.id, 0) + 1
            cost_us = self._cost_us(job) * job.spec.cpus
            candidates = with_load(candidates, chosen, 1, cost_us)
        return commands

    def _may_begin(self, job: Job) -> int:
        """How many late tasks of the job may be begun elsewhere now. Few at first, and more as it
        pays: where tasks are long by themselves their backups win nothing, and that ends it."""
        assert job.full is not None
        won, lost = self.stragglers.uses_of(kind_of(job.full.work))
        if lost > IN_VAIN_MAX + won:
            return 0
        under_way = len(job.speculated & job.backed)
        return min(backing.speculations_left(job), FIRST + 2 * won - under_way)

    @staticmethod
    def _may(job: Job, owner: PeerId, task: LaggingTask) -> bool:
        held = job.grants.get(task.grant)
        is_own = held is not None and held.peer == owner and task.index in held.tasks
        shut = (job.backed, job.speculated, job.thinned, job.suspects, job.orphaned)
        return is_own and not any(task.index in tasks for tasks in shut)

    def _quickest(
        self,
        job: Job,
        late: Late,
        candidates: Sequence[Candidate],
    ) -> Candidate | None:
        """Of those with nothing to do: who would have it done first, and well before its owner;
        who is known to be slower only if it has run for very long."""
        assert job.full is not None
        owner, index = late.owner, late.task.index
        kind = kind_of(job.full.work)
        here_us = next((_speed_us(c, kind) for c in candidates if c.peer == owner), 0)
        cpus = job.spec.cpus
        able: list[tuple[float, bool, PeerId, Candidate]] = []
        for c in candidates:
            if c.peer == owner or c.slots - c.owned * cpus < cpus or not self._fits(job, c):
                continue
            if index in job.avoids.get(c.peer, EMPTY):
                continue
            speed_us = _speed_us(c, kind)
            takes_ms = speed_us / 1000 if speed_us else late.usual_ms
            is_slower = bool(speed_us and here_us and speed_us > SLOWER * here_us)
            if takes_ms * (FAR_BETTER if is_slower else BETTER) < late.left_ms:
                able.append((takes_ms, not speed_us, c.peer, c))
        return min(able)[-1] if able else None


def _called_off(job: Job, backup: HeldGrant, task: LaggingTask) -> list[BackUp]:
    """It is no quicker there: the task is long by itself."""
    tasks = TaskSet.of(task.index, task.index + 1) & backup.tasks & job.speculated
    where = backup.peer, backup.incarnation
    return [BackUp(job.id, tasks, *where, speculates=True, ends=True)] if tasks.ranges else []


def domain_of(job: Job) -> str:
    """The label of what fails together."""
    needs = job.spec.needs
    return needs.spread if needs is not None and needs.spread else DOMAIN


def lacking(job: Job) -> list[tuple[frozenset[PeerId], TaskSet]]:
    """Tasks that run on fewer peers than the job wants, by the peers where they can't run, too."""
    left_out = job.orphaned | job.thinned | job.suspects
    found: list[tuple[frozenset[PeerId], TaskSet]] = []
    enough = backing.enough(job)
    for held in job.grants.values():
        tasks = held.tasks - enough - left_out
        if tasks.ranges:
            found.append((frozenset({held.peer}), tasks))
    others = [(held.peer, held.tasks) for held in job.backups.values()]
    for peer, there in (*others, *job.avoids.items()):
        found = [
            (more, part)
            for peers, tasks in found
            for more, part in ((peers, tasks - there), (peers | {peer}, tasks & there))
            if part.ranges
        ][:GROUPS_MAX]
    return found


def _machine_of(c: Candidate) -> int:
    return c.seen.load.machine if c.seen is not None and c.seen.load is not None else 0


def _speed_us(c: Candidate, kind: int) -> int:
    """What a task of this kind takes there; 0: not known."""
    if c.seen is None or c.seen.load is None:
        return 0
    return next((s.mean_us for s in c.seen.load.speeds if s.kind == kind), 0)
