"""What callers ask of a simulated cluster: jobs, cancels, and all that is about keeping them."""

from __future__ import annotations

import random
from collections.abc import Container
from functools import partial
from typing import Final, Protocol

from msgspec.structs import replace

from p2psched.model.commands import Cancel, Forget, Held, Outcome, Pin, Retry, SubmitJob
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import JobSpec
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_after import Descents
from p2psched.testing.sim_backups import Backings
from p2psched.testing.sim_checkpoints import Savings
from p2psched.testing.sim_exclusive import Exclusives
from p2psched.testing.sim_jobs import kills_its_peer, kills_none, may_hang, sim_job, with_hangs
from p2psched.testing.sim_needs import Choices
from p2psched.testing.sim_once import Persons
from p2psched.testing.sim_precedence import Precedences
from p2psched.testing.sim_rules import Rules
from p2psched.testing.sim_silence import Silences

KILLER_JOBS_MAX: Final = 2
HANGING_JOBS_MAX: Final = 4
HANGING_MEAN_US_MAX: Final = 200_000  # of the tasks beside those that hang
CANCEL_AGAIN_MS: Final = 3_000
HANGING_MS_MAX: Final = 3_000  # until all that hangs in vain has met its limit
WORK_US_MAX: Final = 6_000_000  # of all tasks together: it must fit into the peace
HOLDING_JOBS_MAX: Final = 8
HOLDING_US_MAX: Final = 3_000_000  # of all tasks that hold locks: they run one by one
HOLDS: Final = (Hold("db"), Hold("cameras", 2), Hold("queue:q", in_order=True))


class Wanted(Protocol):
    """See `simulate.Options`."""

    @property
    def jobs_max(self) -> int: ...
    @property
    def poison(self) -> bool: ...
    @property
    def hanging(self) -> bool: ...
    @property
    def keeping(self) -> bool: ...
    @property
    def holding(self) -> bool: ...
    @property
    def retrying(self) -> bool: ...
    @property
    def choosing(self) -> bool: ...
    @property
    def once(self) -> bool: ...
    @property
    def exclusives(self) -> int | None: ...
    @property
    def backing(self) -> bool: ...
    @property
    def saving(self) -> bool: ...
    @property
    def stalling(self) -> bool: ...
    @property
    def preempting(self) -> bool: ...
    @property
    def ordering(self) -> bool: ...


class Workload:
    """Callers that submit, submit again, cancel and read, each through any peer."""

    def __init__(self, cluster: SimCluster, rng: random.Random, options: Wanted) -> None:
        self._cluster = cluster
        self._rng = rng
        self._keeping = options.keeping
        self._left = rng.randint(options.jobs_max // 4, options.jobs_max)
        self._work_us = WORK_US_MAX
        self._again_us = WORK_US_MAX
        self._pause_ms = rng.choice((20, 200, 1_000))
        self._submits: list[SubmitJob] = []
        self._inherited: list[SubmitJob] = []  # that somebody asked of a cluster before this one
        self._stopped = False
        # Drawn apart: a seed without such tasks is the run that it was before there were any.
        self._poison = random.Random(f"poison {cluster.seed}")
        self._killer_jobs_left = self._poison.choice((0, 0, KILLER_JOBS_MAX))
        self._killer_jobs_left *= options.poison
        self._hanging = random.Random(f"hangs {cluster.seed}")
        self._hanging_jobs_left = self._hanging.choice((0, HANGING_JOBS_MAX)) * options.hanging
        self._hung_ms = HANGING_MS_MAX
        self._holding = random.Random(f"holds {cluster.seed}")
        self._holding_jobs_left = self._holding.choice((0, HOLDING_JOBS_MAX)) * options.holding
        self._held_us = HOLDING_US_MAX
        self._rules = Rules(cluster.seed, wanted=options.retrying)
        self._persons = Persons(cluster, wanted=options.once)
        self._exclusives = Exclusives(
            cluster, cluster.seed, options.exclusives, poison=options.poison
        )
        self._backings = Backings(cluster, wanted=options.backing)
        self._savings = Savings(cluster, cluster.seed, wanted=options.saving)
        self._silences = Silences(cluster, cluster.seed, wanted=options.stalling)
        self._precedences = Precedences(cluster, wanted=options.preempting)
        self._descents = Descents(cluster, wanted=options.ordering)
        self._choices = Choices(cluster.seed, wanted=options.choosing)

    @property
    def killer_count(self) -> int:
        """Tasks that kill their peers, of all jobs."""
        return sum(
            kills_its_peer(submit.spec.name, submit.job, index)
            for submit in self._submits
            for index in submit.spec.tasks
        )

    @property
    def saving_count(self) -> int:
        """Tasks that save checkpoints: one that finds none waits for a while before it begins."""
        return self._savings.count + self._precedences.count

    def inherit(self, before: Workload) -> None:
        """This cluster goes on from that one's: what would never end there is here, too."""
        self._inherited += before._submits
        self._persons.begin()

    def stop(self) -> None:
        """No more requests but one: somebody cancels what would never end."""
        self._stopped = True
        self._cancel_hanging({submit.job for submit in self._submits} | self._running())

    def _cancel_hanging(self, jobs: Container[JobId]) -> None:
        """And again: somebody who asked before may have it run once more only now."""
        for submit in [*self._inherited, *self._submits]:
            spec, job = submit.spec, submit.job
            if spec.timeout_ms is None and may_hang(spec.name) and job in jobs:
                self._cluster.ask(Cancel(job))
        self._cluster.after(CANCEL_AGAIN_MS, lambda: self._cancel_hanging(self._running()))

    def _running(self) -> set[JobId]:
        """As anybody knows who is up."""
        return {job for peer in self._cluster.peers for job in peer.scheduler.machine.running}

    def next(self) -> None:
        """One more request, and the next one later."""
        if self._stopped:
            return
        rng, cluster = self._rng, self._cluster
        draw = rng.random()
        if draw < 0.55 and self._left:
            self._left -= 1
            self._submit()
        elif draw < 0.65 and self._submits:
            cluster.ask(rng.choice(self._submits))  # a caller that doesn't know it was accepted
        elif draw < 0.72 + 0.03 * (not self._keeping) and self._submits:
            cluster.ask(Cancel(rng.choice(self._submits).job))
        elif draw < 0.9 and self._submits and self._keeping:
            self._keep(rng.choice(self._submits))
        else:
            cluster.read(rng.randrange(len(cluster.peers)))
        cluster.after(rng.randrange(1, 2 * self._pause_ms), self.next)

    def _submit(self) -> None:
        rng = self._rng
        mean_us = rng.choice((1_000, 20_000, 200_000, 1_000_000))
        size = min(rng.choice((1, 3, 12, 40)), self._work_us // mean_us)
        if size < 1:
            return
        self._work_us -= size * mean_us
        first = rng.choice((0, 0, 7))
        spec = sim_job(
            TaskSet.of(first, first + size),
            mean_us=mean_us,
            fail_permille=rng.choice((0, 0, 100, 500)),
            retries=rng.choice((0, 1, 3)),
            function=first == 0 and rng.random() < 0.5,
            large_permille=rng.choice((0, 0, 300, 1000)) if self._keeping else 0,
            copies=rng.choice((1, 2, 2, 3)) if self._keeping else 2,
            keep_ms=rng.choice((None, None, None, 200, 1_500, 4_000)) if self._keeping else None,
            kill_permille=self._draw_killers(size),
        )
        if mean_us <= HANGING_MEAN_US_MAX and kills_none(spec.name):
            spec = self._draw_hang(spec)
            spec = self._draw_hold(spec, mean_us)
        spec = self._exclusives.draw(self._persons.draw(self._rules.draw(spec)))
        job = JobId(new_id(rng))
        if kills_none(spec.name):
            spec = self._choices.draw(spec, job, [submit.job for submit in self._submits])
        spec = self._silences.draw(self._savings.draw(self._backings.draw(spec)))
        spec = self._precedences.draw(spec)
        spec = self._descents.draw(spec, [submit.job for submit in self._submits])
        self._cluster.happened["job that chooses"] += bool(spec.needs is not None or spec.policy)
        command = SubmitJob(job, spec)
        self._submits.append(command)
        self._cluster.ask(command, self._on_answer)

    def _draw_killers(self, size: int) -> int:
        """One task of the job or two, more or less, in two jobs of a seed."""
        if not self._killer_jobs_left or self._poison.random() < 0.7:
            return 0
        self._killer_jobs_left -= 1
        return min(1000, self._poison.choice((1000, 2000)) // size)

    def _draw_hang(self, spec: JobSpec) -> JobSpec:
        """Some tasks of it never end; there is a limit, or somebody cancels the job."""
        rng = self._hanging
        if not self._hanging_jobs_left or rng.random() < 0.5:
            return spec
        self._hanging_jobs_left -= 1
        permille, timeout_ms = rng.choice((100, 500, 1000)), rng.choice((None, 100, 700))
        cost_ms = (timeout_ms or 0) * (spec.retries + 1) * len(spec.tasks) * permille // 1000
        if cost_ms > self._hung_ms:
            return spec
        self._hung_ms -= cost_ms
        return with_hangs(spec, hang_permille=permille, timeout_ms=timeout_ms)

    def _draw_hold(self, spec: JobSpec, mean_us: int) -> JobSpec:
        """Its tasks hold a lock that those of other jobs want, too; also those that hang."""
        cost_us = mean_us * len(spec.tasks) * (spec.retries + 1)
        if not self._holding_jobs_left or cost_us > self._held_us:
            return spec
        self._holding_jobs_left -= 1
        self._held_us -= cost_us
        return replace(spec, hold=self._holding.choice(HOLDS))

    def _keep(self, submit: SubmitJob) -> None:
        """Forget, pin, run again; and what peers say too late."""
        rng, cluster = self._rng, self._cluster
        draw = rng.random()
        if draw < 0.12:
            cluster.ask(Forget(submit.job), partial(self._count, "forget"))
        elif draw < 0.3:
            soon = self._about_to_go() if rng.random() < 0.5 else []
            job = rng.choice(soon or [submit.job])
            cluster.ask(Pin(job, pinned=rng.random() < 0.4))
        elif draw < 0.8:
            self._retry(rng.choice(self._unsuccessful() or [submit]))
        else:
            self._report_late()

    def _retry(self, submit: SubmitJob) -> None:
        """As long as there is time to run all of it once more."""
        spec = submit.spec
        work_us = len(spec.tasks) * int(spec.name.split()[0])
        if work_us > self._again_us:
            return
        self._again_us -= work_us
        tasks = spec.tasks.take(self._rng.randrange(5)) if self._rng.random() < 0.3 else EMPTY
        self._cluster.ask(Retry(submit.job, spec, tasks), partial(self._count, "retry"))

    def _unsuccessful(self) -> list[SubmitJob]:
        """Jobs that somebody who looks would want to run again."""
        shadow = self._cluster.referees.shadow
        known = ((submit, shadow.jobs.get(submit.job)) for submit in self._submits)
        return [
            submit
            for submit, job in known
            if job is not None and (job.failed or shadow.out_of_reach(job))
        ]

    def _about_to_go(self) -> list[JobId]:
        """Jobs that will be forgotten by themselves, and soon."""
        jobs = self._cluster.referees.shadow.jobs.items()
        return [
            name for name, job in jobs if job.state != "running" and job.spec.keep_ms is not None
        ]

    def _report_late(self) -> None:
        """On what was replaced since; it is true."""
        rng, cluster = self._rng, self._cluster
        replaced = cluster.referees.shadow.replaced[-20:]
        if replaced:
            job, (index, name), digest = rng.choice(replaced)
            absent = [peer.id for peer in cluster.peers if not peer.blobs.get(digest)]
            blobs = ((index, name, digest),)
            for peer in absent:
                cluster.ask(Held(job, peer, blobs, held=False))

    def _count(self, what: str, outcome: Outcome) -> None:
        self._cluster.happened[f"{what}: {type(outcome).__name__}"] += 1

    def _on_answer(self, outcome: Outcome) -> None:
        self._cluster.happened[f"submit: {type(outcome).__name__}"] += 1
