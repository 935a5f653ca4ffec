"""One seed, one run: a drawn cluster, drawn work, drawn faults; then peace, and an end.

While faults last the referees watch what must never happen. Then everything heals, and what must
happen has `PEACE_MS` of virtual time: every accepted job ends, all peers know the same.
"""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from p2psched.core.raft.timing import Timing
from p2psched.model.commands import Cancel, Forget, Held, Outcome, Pin, Retry, SubmitJob
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import JobSpec
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.faults import Changes, Faults, changed, changes_of, text_of
from p2psched.testing.sim import LAST_EVENTS, SimCluster
from p2psched.testing.sim_apart import Apart
from p2psched.testing.sim_drains import Draining
from p2psched.testing.sim_draws import draw_snapshots, drawn_apart
from p2psched.testing.sim_executor import (
    kills_its_peer,
    kills_none,
    may_hang,
    sim_job,
    with_hangs,
)
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_group import Group, Regrouping, await_group
from p2psched.testing.sim_members import Replacing, await_forgotten
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_report import CALM_MS, Report, report_of
from p2psched.testing.sim_storm import Storm
from p2psched.testing.sim_world import Snapshots

Busy = Replacing | Draining | Followers | Apart
EVENTS: Final = 5_000  # while faults last
PEACE_MS: Final = 30_000
KILLER_MS: Final = 30_000  # more peace for each task that kills its peer: five die, or a few more
KILLER_JOBS_MAX: Final = 2
HANGING_JOBS_MAX: Final = 4
HANGING_MEAN_US_MAX: Final = 200_000  # of the tasks beside those that hang
CANCEL_AGAIN_MS: Final = 3_000
HANGING_MS_MAX: Final = 3_000  # until all that hangs in vain has met its limit
STORM_MS_MAX: Final = 1_200_000  # faults end then, however little happened
WORK_US_MAX: Final = 6_000_000  # of all tasks together: it must fit into the peace
JOBS_MAX: Final = 40
SIZES: Final = (3, 3, 3, 5, 5, 5, 1, 2, 4, 7)
TIMINGS: Final = (
    Timing(),
    Timing(heartbeat_ms=50, election_ms_min=200, election_ms_max=400),
    Timing(heartbeat_ms=20, election_ms_min=50, election_ms_max=90),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is not drawn. None: drawn."""

    peers: int | None = None
    followers: int | None = None
    locks: int | None = None  # callers that take some
    events: int = EVENTS
    faults: Faults | None = None
    changes: Changes = ()  # of the faults, whether drawn or given
    timing: Timing | None = None
    formed: bool | None = None
    snapshots: Snapshots | None = None
    jobs_max: int = JOBS_MAX
    poison: bool = True  # a few tasks kill their peers, in some seeds
    hanging: bool = True  # a few tasks never end by themselves, in some seeds
    healing: bool = True  # leaders look after the group
    keeping: bool = True  # callers forget, pin and run again; some results are large
    last: int = LAST_EVENTS  # shown when it fails


def replay_line(seed: int, options: Options) -> str:
    """The command that runs it again. What only a program can set (timing, snapshots, whether the
    cluster is there from the start) is not in it."""
    words = ["p2psched sim replay", str(seed)]
    if options.peers is not None:
        words.append(f"--peers {options.peers}")
    if options.events != EVENTS:
        words.append(f"--events {options.events}")
    if options.jobs_max != JOBS_MAX:
        words.append(f"--submits {options.jobs_max}")
    for name in ("poison", "hanging", "healing", "keeping"):
        words += [f"--no-{name}"] * (not getattr(options, name))
    if options.faults is not None:
        words.append("--calm")
    changes = changes_of(options.faults or Faults()) | dict(options.changes)
    words += [f"--fault {name}={text_of(value)}" for name, value in changes.items()]
    return " ".join(words)


def simulate(seed: int, options: Options | None = None) -> Report:
    """Run one seed. Raises `sim.SimulationError` if a promise is broken."""
    options = options or Options()
    rng = random.Random(seed)
    cluster = draw_cluster(seed, rng, options)
    cluster.referees.poison.strict = cluster.faults == Faults()
    workload = Workload(cluster, rng, options)
    workload.next()
    Storm(cluster, rng)
    apart = Apart(cluster, locks=options.locks)
    Regrouping(cluster)
    replacing, draining = Replacing(cluster), Draining(cluster)
    followers = Followers(cluster, options.followers)
    while cluster.events < options.events and cluster.now_us < STORM_MS_MAX * 1000:
        cluster.step()
    workload.stop()
    cluster.heal()
    followers.heal()
    draining.end()
    apart.end()
    healed_us = cluster.now_us
    under_way = (replacing, draining, followers, apart)
    await_end(cluster, under_way, PEACE_MS + KILLER_MS * workload.killer_count)
    followers.check_end()
    apart.check_end()
    return report_of(cluster, healed_us)


def draw_cluster(seed: int, rng: random.Random, options: Options) -> SimCluster:
    faults = Faults.draw(rng)
    size = rng.choice(SIZES)
    timing = rng.choice((*TIMINGS, TIMINGS[0]))
    formed = rng.random() < 0.5
    segment_bytes = rng.choice((1 << 10, 1 << 13, 1 << 20))
    slots = [rng.randint(1, 4) for _ in range(max(SIZES))]
    snapshots = options.snapshots or draw_snapshots(rng)
    if options.keeping:  # what can be damaged is there only then
        faults = replace(faults, damage_every_ms=rng.choice((0, 500, 3_000)))
    faults = drawn_apart(faults, seed, healing=options.healing)
    group = Group.draw(seed)
    return SimCluster(
        seed=seed,
        peers=options.peers or size,
        faults=changed(options.faults or faults, dict(options.changes)),
        timing=options.timing or timing,
        slots=slots,
        formed=formed if options.formed is None else options.formed,
        segment_bytes=segment_bytes,
        snapshots=snapshots,
        zones=group.zones,
        away_ms=group.away_ms if options.healing else None,
        replay=replay_line(seed, options),
        last=options.last,
    )


def await_end(cluster: SimCluster, under_way: Sequence[Busy], peace_ms: int) -> None:
    referees, peers = cluster.referees, cluster.peers

    def all_done() -> bool:
        asked = cluster.callers.waiting or any(what.is_busy for what in under_way)
        all_ended = not asked and referees.has_ended(peers)
        return all_ended and referees.keeping.is_settled(peers)

    cluster.run_until(all_done, within_ms=peace_ms, every=25)
    await_group(cluster)
    await_forgotten(cluster)
    # An owner may still end what was taken from it, and learns of its last outcomes.
    cluster.run_for(CALM_MS)
    # And one may have applied what a majority has, and be about to write it.
    cluster.run_until(
        lambda: all_done() and not any(map(_has_more_to_do, peers)),
        within_ms=PEACE_MS,
        every=25,
    )
    cluster.check_end()


def _has_more_to_do(peer: SimPeer) -> bool:
    is_written = peer.engine.raft.stable_index >= peer.engine.delivered
    return bool(peer.scheduler.owner.kept()) or not is_written


# --- work -----------------------------------------------------------------------------------------


class Workload:
    """Callers that submit, submit again, cancel and read, each through any peer."""

    def __init__(self, cluster: SimCluster, rng: random.Random, options: Options) -> None:
        self._cluster = cluster
        self._rng = rng
        self._keeping = options.keeping
        self._left = rng.randint(options.jobs_max // 4, options.jobs_max)
        self._work_us = WORK_US_MAX
        self._again_us = WORK_US_MAX
        self._pause_ms = rng.choice((20, 200, 1_000))
        self._submits: list[SubmitJob] = []
        self._stopped = False
        # Drawn apart: a seed without such tasks is the run that it was before there were any.
        self._poison = random.Random(f"poison {cluster.seed}")
        self._killer_jobs_left = self._poison.choice((0, 0, KILLER_JOBS_MAX))
        self._killer_jobs_left *= options.poison
        self._hanging = random.Random(f"hangs {cluster.seed}")
        self._hanging_jobs_left = self._hanging.choice((0, HANGING_JOBS_MAX)) * options.hanging
        self._hung_ms = HANGING_MS_MAX

    @property
    def killer_count(self) -> int:
        """Tasks that kill their peers, of all jobs."""
        return sum(
            kills_its_peer(submit.spec.name, submit.job, index)
            for submit in self._submits
            for index in submit.spec.tasks
        )

    def stop(self) -> None:
        """No more requests but one: somebody cancels what would never end."""
        self._stopped = True
        self._cancel_hanging({submit.job for submit in self._submits})

    def _cancel_hanging(self, jobs: Container[JobId]) -> None:
        """And again: somebody who asked before may have it run once more only now."""
        for submit in self._submits:
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
        command = SubmitJob(JobId(new_id(rng)), spec)
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
