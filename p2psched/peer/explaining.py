"""Why a task is where it is: what the ledger says, and what whoever decided remembers.

Memory of decisions is short and lost with a process: then the history of the job tells when it was
granted to whom, and that is all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.core import exclusive
from p2psched.core.decisions import told
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.retrying import SINK_STEPS_MAX
from p2psched.model.errors import P2PSchedError
from p2psched.model.explain_messages import (
    Decision,
    DecisionsOf,
    DecisionsTold,
    ExplainAnswer,
    ExplainCall,
    Explained,
    ExplainTask,
    WallOf,
)
from p2psched.model.ids import PeerId
from p2psched.model.once import Start
from p2psched.model.taskset import TaskSet
from p2psched.net.together import together
from p2psched.peer.others import Others
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.views import job_of, task_state, why_waiting

PATIENCE_S: Final = 1.0  # for what another peer remembers
ASKED_AT_ONCE_MAX: Final = 64


class Explaining:
    def __init__(
        self, scheduling: SchedulerLoop, others: Others, linearize: Callable[[], Awaitable[None]]
    ) -> None:
        self._scheduler = scheduling.scheduler
        self._wall_of: WallOf = scheduling.wall_of
        self._others = others
        self._linearize = linearize

    async def answer(self, body: ExplainCall) -> ExplainAnswer:
        """Raises NotFound for a job or task that there isn't."""
        if isinstance(body, DecisionsOf):
            return DecisionsTold(tuple(self._own(body)))
        return await self._explain(body)

    async def _explain(self, body: ExplainTask) -> Explained:
        await self._linearize()
        machine = self._scheduler.machine
        job = job_of(machine, body.job)
        state, owner = task_state(job, body.index)
        asked = DecisionsOf(body.job, body.index)
        decisions = self._own(asked)
        silent: list[PeerId] = []

        async def ask(peer: PeerId) -> None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    answer = await self._others.call(peer, asked)
            except (TimeoutError, P2PSchedError):
                silent.append(peer)
            else:
                assert isinstance(answer, DecisionsTold)
                decisions.extend(answer.decisions)

        me = self._scheduler.info.peer
        live = [peer for peer, row in machine.peers.items() if row.live and peer != me]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE_S):
                await together(ask, live, at_most=ASKED_AT_ONCE_MAX)
        one = TaskSet.of(body.index, body.index + 1)
        ((steps, _),) = job.sunk.split(one)
        decisions.sort(key=lambda decision: -decision.wall_ms)
        return Explained(
            job=body.job,
            index=body.index,
            state=state,
            owner=owner,
            waits=_why(job, machine, state, owner),
            policy=job.spec.policy,
            decisions=tuple(decisions),
            silent=tuple(sorted(silent)),
            steps_sunk=steps,
            steps_max=SINK_STEPS_MAX,
            stands_behind=job.places(one)[0][0] if steps else 0,
        )

    def _own(self, asked: DecisionsOf) -> list[Decision]:
        scheduler = self._scheduler
        me = scheduler.info.peer
        placed = scheduler.decisions.find(asked.job, asked.index)
        which = asked.job, asked.index
        wall_of = self._wall_of
        found = [told(record, asked.index, scheduler.policies, me, wall_of) for record in placed]
        found += scheduler.stealing.remembered(*which, wall_of)
        found += scheduler.deciding.backups.remembered(*which, me, wall_of)
        return found + scheduler.watching.remembered(*which, wall_of)


def _why(job: Job, machine: Machine, state: str, owner: PeerId | None) -> str:
    if state == "unknown" and owner is not None and job.spec.start is Start.EXCLUSIVE:
        left_ms = max(0, (exclusive.next_lapse_ms(job) or 0) - machine.stamp_ms)
        return (
            f"it is exclusive, and may still run on {machine.name_of(owner)}, which was lost: its "
            f"lease is over in {left_ms / 1000:.1f} s, and then it runs elsewhere"
        )
    if state == "unknown" and owner is not None:
        return (
            f"it may have run on {machine.name_of(owner)}, which was lost, and must not start "
            "twice: see what it did, and say so with `p2psched job resolve`"
        )
    return why_waiting(job, machine) if state == "waiting" else ""
