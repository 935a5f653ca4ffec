"""One seed, one run: a drawn cluster, drawn work, drawn faults; then peace, and an end.

While faults last the referees watch what must never happen. Then everything heals, and what must
happen has `PEACE_MS` of virtual time: every accepted job ends, all peers know the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from p2psched.core.raft.timing import Timing
from p2psched.testing.faults import Changes, Faults, changed, changes_of, text_of
from p2psched.testing.sim import LAST_EVENTS, SimCluster
from p2psched.testing.sim_apart import Apart
from p2psched.testing.sim_cutoff import Spoolers, max_disconnect_ms
from p2psched.testing.sim_doubts import Doubts
from p2psched.testing.sim_drains import Draining
from p2psched.testing.sim_draws import draw_snapshots, drawn_apart
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_group import Group, Regrouping, await_group
from p2psched.testing.sim_members import Replacing, await_forgotten
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_report import CALM_MS, Report, report_of
from p2psched.testing.sim_stalls import Stalls
from p2psched.testing.sim_storm import Storm
from p2psched.testing.sim_workload import Workload
from p2psched.testing.sim_world import Snapshots

Busy = Replacing | Draining | Followers | Apart
EVENTS: Final = 5_000  # while faults last
PEACE_MS: Final = 30_000
KILLER_MS: Final = 30_000  # more peace for each task that kills its peer: five die, or a few more
SAVING_MS: Final = 20_000  # and for one that saves checkpoints: see `resuming.PATIENCE_MS`
STORM_MS_MAX: Final = 1_200_000  # faults end then, however little happened
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
    exclusives: int | None = None  # jobs whose tasks run at one place at a time, each
    events: int = EVENTS
    faults: Faults | None = None
    changes: Changes = ()  # of the faults, whether drawn or given
    timing: Timing | None = None
    formed: bool | None = None
    snapshots: Snapshots | None = None
    jobs_max: int = JOBS_MAX
    poison: bool = True  # a few tasks kill their peers, in some seeds
    hanging: bool = True  # a few tasks never end by themselves, in some seeds
    holding: bool = True  # tasks of a few jobs hold locks, in some seeds
    choosing: bool = True  # some jobs say which peers they need, and by whom they are placed
    once: bool = True  # tasks of a few jobs must not start twice, in some seeds
    backing: bool = True  # tasks of a few jobs run on several peers, in some seeds
    stalling: bool = True  # tasks of a few jobs fall silent, and are ended for it, in some seeds
    preempting: bool = True  # jobs have priorities, and some make way, in some seeds
    ordering: bool = True  # some jobs come after others, in some seeds
    saving: bool = True  # tasks of a few jobs save checkpoints, in some seeds
    retrying: bool = True  # a few jobs have rules for retries, or limits of time, in some seeds
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
    doubts = Doubts(cluster)
    Spoolers(cluster)
    followers = Followers(cluster, options.followers)
    stalls = Stalls(cluster)
    while cluster.events < options.events and cluster.now_us < STORM_MS_MAX * 1000:
        cluster.step()
    workload.stop()
    with cluster.told():
        cluster.heal()
        followers.heal()
        draining.end()
        doubts.end()
        stalls.end()
        apart.end()
    healed_us = cluster.now_us
    under_way = (replacing, draining, followers, apart)
    more_ms = KILLER_MS * workload.killer_count + SAVING_MS * workload.saving_count
    await_end(cluster, under_way, PEACE_MS + more_ms)
    with cluster.told():
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
    cluster = SimCluster(
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
    cluster.max_disconnect_ms = max_disconnect_ms(seed)
    cluster.cutoff.max_us = cluster.max_disconnect_ms * 1000
    return cluster


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
    scheduler = peer.scheduler
    is_working = bool(scheduler.owner.kept()) or scheduler.separation.is_open
    return is_working or bool(peer.notes.spool) or not is_written
