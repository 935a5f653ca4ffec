"""E12: what makes way may make way, for a task that goes before it, waits and fits there; and not
for ever.

The referee reads specs, and the state of who asks, with rules of its own. That such a task goes on
from its newest checkpoint is E10.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from p2psched.model.commands import GiveBack
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec
from p2psched.model.precedence import MakeWay
from p2psched.testing.facts import Fact
from p2psched.testing.promises import demand

if TYPE_CHECKING:
    from p2psched.core.machine import Machine
    from p2psched.testing.shadow import Shadow

TIMES_MAX: Final = 20


class PreemptionReferee:
    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._times: Counter[tuple[str, int]] = Counter()
        self.asked = 0

    def on_said(self, asks: Machine, to: PeerId, way: MakeWay) -> None:
        """A coordinator asks an owner, by the state that it has applied."""
        self.asked += 1
        by = asks.jobs[way.job]
        waiting = len(by.waiting | by.orphaned)
        row, needs = asks.peers[to], by.spec.needs
        demand(bool(waiting), "E12", f"nothing of job {way.job} waits")
        has = {(key, value) for key, value in row.offers.labels}
        fits = row.info.slots >= by.spec.cpus and (
            needs is None or (set(needs.require) <= has and row.offers.gpus >= needs.gpus)
        )
        demand(fits, "E12", f"job {way.job} does not fit on {to}, whose tasks shall make way")
        count = 0
        for part in way.ways:
            job = asks.jobs[part.job]
            held = job.grants.get(part.grant)
            demand(held is not None and held.peer == to, "E12", f"{to} has no {part}")
            assert job.full is not None
            assert by.full is not None
            _judge(part.job, job.full, by.full)
            count += part.count
        gpus = needs.gpus if needs is not None else 0
        memory = needs is not None and needs.memory_mib > 0
        most = waiting * max(by.spec.cpus, gpus)
        demand(memory or count <= most, "E12", f"{count} tasks make way for {waiting}")

    def on_committed(self, command: object, facts: list[Fact]) -> None:
        for what, name, index, _ in facts:
            if what == "reopened":
                self._times.pop((name, index), None)
            elif what == "preempted":
                self._times[name, index] += 1
                often = self._times[name, index]
                demand(often <= TIMES_MAX, "E12", f"task {name}/{index} has made way {often} times")
        if isinstance(command, GiveBack) and command.by and any(f[0] == "preempted" for f in facts):
            job, by = self._shadow.jobs[command.job], self._shadow.jobs.get(command.by)
            _judge(command.job, job.spec, by.spec if by is not None else None)


def _judge(name: JobId, spec: JobSpec, by: JobSpec | None) -> None:
    own = spec.precedence
    may = own is not None and own.preemptible and bool(spec.checkpoint)
    demand(may, "E12", f"a task of job {name} makes way, and none of that may")
    if by is None or own is None:  # it is forgotten by now
        return
    higher = by.precedence.priority if by.precedence is not None else 0
    demand(higher > own.priority, "E12", f"job {name} makes way for one that is not before it")
