"""What happened in one seed of the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from p2psched.testing.sim import SimCluster

CALM_MS: Final = 250  # between two looks whether all is done


@dataclass(slots=True)
class Report:
    """What happened in one seed."""

    seed: int
    peers: int
    events: int
    virtual_ms: int
    trace: int
    happened: Counter[str]
    regrant_ms: list[int] = field(default_factory=list)
    peace_ms: int = 0  # from the end of faults until all jobs had ended
    last: list[str] = field(default_factory=list)  # events


def report_of(cluster: SimCluster, healed_us: int) -> Report:
    """`healed_us`: when faults ended."""
    happened = cluster.happened + cluster.referees.members.changes
    happened["terms led"] = len(cluster.referees.leaders)
    happened["entries"] = len(cluster.referees.committed)
    happened["jobs"] = len(cluster.referees.accepted)
    happened["jobs cancelled"] = len(cluster.referees.cancelled)
    happened["tasks blamed"] = len(cluster.referees.poison.blamed)
    happened["jobs forgotten"] = len(cluster.referees.shadow.forgotten)
    counts = cluster.referees.shadow.counts
    for what in ("reopened", "lost", "large", "spaceless", "timed out", "given back", "moved"):
        happened[f"tasks {what}"] = counts[what]
    for what in ("backed up", "promoted", "stalled", "preempted"):
        happened[f"tasks {what}"] = counts[what]
    happened["tasks backed up as late"] = cluster.referees.backups.late
    happened["asked to make way"] = cluster.referees.preemption.asked
    happened["tasks overtaken"] = cluster.referees.backups.overtaken
    for what in ("retried by a rule", "delayed", "waited for too long"):
        happened[f"tasks {what}"] = counts[what]
    happened["jobs released"], happened["jobs aborted"] = counts["released"], counts["aborted"]
    happened["jobs out of time"] = counts["out of time"]
    happened["jobs with an alert"] = counts["alerted"]
    happened["writes without space"] = sum(peer.disk.refused for peer in cluster.peers)
    happened["tasks started"] = len(cluster.referees.starts)
    happened["results refused"] = cluster.peers[0].scheduler.machine.results_refused
    happened["syncs"] = sum(peer.disk.syncs for peer in cluster.peers)
    happened["clocks drifted"] = int(cluster.faults_drawn.drift_ppm > 0)
    happened["late turns"] = int(cluster.faults_drawn.turn_us > 0)
    return Report(
        seed=cluster.seed,
        peers=len(cluster.peers),
        events=cluster.events,
        virtual_ms=cluster.now_us // 1000,
        trace=cluster.trace,
        happened=happened,
        regrant_ms=cluster.referees.regrant_ms,
        peace_ms=(cluster.now_us - healed_us) // 1000 - CALM_MS,
        last=cluster.last_events(),
    )
