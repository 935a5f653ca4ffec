"""What load reports cost: in simulated groups of peers that have work, and the sensors of this
machine. Bytes and packets don't depend on the machine; processor time does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.registry import OURS, Measure, Stage
from p2psched.observe.machine import Sensors
from p2psched.testing.load_sim import LoadSim

WARM_UP_MS: Final = 30_000
WATCHED_MS: Final = 60_000
READINGS: Final = 200
SEED: Final = 1
_found: dict[tuple[int, float], Mapping[str, float]] = {}


def group(peers: int, jobs_per_min: float) -> Mapping[str, float]:
    """A peer and second; the contenders of one measure look at the same run."""
    key = peers, jobs_per_min
    if key not in _found:
        sim = LoadSim(peers, seed=SEED, jobs_per_min=lambda _: jobs_per_min)
        sim.begin()
        sim.run(WARM_UP_MS)
        before = _counts(sim)
        sim.run(WATCHED_MS)
        passed = peers * WATCHED_MS / 1000
        _found[key] = {name: (now - before[name]) / passed for name, now in _counts(sim).items()}
    return _found[key]


def _counts(sim: LoadSim) -> dict[str, float]:
    return {
        "wire": sum(peer.sent_bytes + peer.link_bytes for peer in sim.peers),
        "said": sim.said_bytes,
        "reports": sim.said_count,
        "json": sim.json_bytes,
        "whole": sim.plain_bytes,
        "saved": sum(reporter.bytes_saved for reporter in sim.reporters),
        "datagrams": sum(peer.datagrams for peer in sim.peers),
        "bare": sim.bare,
    }


async def said(_: Stage) -> Mapping[str, float]:
    """With what each carries around it."""
    found = group(20, 6.0)
    return {
        "report_bytes": found["said"] / found["reports"],
        "bytes_per_s": found["said"],
        "saved_bytes_per_s": found["saved"],
        "gossip_bytes_per_s": found["wire"],
    }


async def as_json(_: Stage) -> Mapping[str, float]:
    """The same, at the same moments, whole and as JSON, with nothing around it."""
    found = group(20, 6.0)
    return {"report_bytes": found["json"] / found["reports"], "bytes_per_s": found["json"]}


async def as_arrays(_: Stage) -> Mapping[str, float]:
    """The same, whole, as MessagePack without names."""
    found = group(20, 6.0)
    return {"report_bytes": found["whole"] / found["reports"], "bytes_per_s": found["whole"]}


async def idle(_: Stage) -> Mapping[str, float]:
    found = group(20, 0.0)
    return {"bytes_per_s": found["said"], "gossip_bytes_per_s": found["wire"]}


async def batched(_: Stage) -> Mapping[str, float]:
    """Datagrams that there would be none of without reports: the others probe."""
    found = group(50, 2.0)
    return {
        "packets_per_s": found["datagrams"] - found["bare"],
        "with_probes_per_s": found["datagrams"],
    }


async def single(_: Stage) -> Mapping[str, float]:
    """Each tells each other one once a second, in a packet of its own."""
    return {"packets_per_s": 49.0, "with_probes_per_s": 49.0 + group(50, 2.0)["bare"]}


async def sensors(_: Stage) -> Mapping[str, float]:
    """Of a process without children; once a second is as often as a peer reads them."""
    with tempfile.TemporaryDirectory() as folder:
        found = Sensors(Path(folder))
        before_ns = time.thread_time_ns()
        for second in range(READINGS):
            found.read(second * 1_000)
        used_us = (time.thread_time_ns() - before_ns) / 1000 / READINGS
    return {"reading_us": used_us, "cpu_percent": used_us / 1e6 * 100}


MEASURES: Final = (
    Measure(
        "load_reports",
        "what one of 20 busy peers says of its load (simulated)",
        {OURS: said, "json": as_json, "arrays": as_arrays},
        repeat_max=1,
    ),
    Measure(
        "load_idle",
        "what one of 20 peers says that have no work (simulated)",
        {OURS: idle},
        repeat_max=1,
    ),
    Measure(
        "load_packets",
        "packets that carry load reports, of one of 50 peers (simulated)",
        {OURS: batched, "single": single},
        repeat_max=1,
    ),
    Measure("sensors", "reading all sensors of this machine", {OURS: sensors}, repeat_max=3),
)
