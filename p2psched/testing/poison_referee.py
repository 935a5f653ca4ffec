"""The referee of tasks that kill their peers (E2).

It knows which tasks do, which the machine does not, and when processes ended. That a task's owner
died alone with it is for `shadow` to say.
"""

from __future__ import annotations

from p2psched.model.commands import Command, PeerDown, PeerUp, Recorded
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec
from p2psched.model.once import Start
from p2psched.model.taskset import TaskSet
from p2psched.testing.promises import demand
from p2psched.testing.shadow import Shadow
from p2psched.testing.shadow_peers import KILLS
from p2psched.testing.sim_jobs import kills_its_peer

Task = tuple[JobId, int]


def _may_lapse(spec: JobSpec) -> bool:
    """True if the job says how many leases on a task may be lost: fewer than peers may die."""
    rules = spec.retry.rules if spec.retry is not None else ()
    return any(rule.cause is Cause.LEASE_LOST for rule in rules)


class PoisonReferee:
    """`strict`: no peer goes but by what it runs, so that no other task may be blamed at all."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self.strict = False
        self.blamed: list[Task] = []  # failed as what kills its peers
        self._gone: dict[Task, set[tuple[PeerId, int]]] = {}  # -> incarnations that left it behind

    def kills(self, job: JobId, index: int) -> bool:
        return kills_its_peer(self._shadow.jobs[job].spec.name, job, index)

    def on_away(self, peer: PeerId, incarnation: int) -> None:
        """A process ended, or is thought to have."""
        for task in self._shadow.runs_on(peer):
            self._gone.setdefault(task, set()).add((peer, incarnation))

    def on_committed(self, command: Command) -> None:
        """Before the shadow applies it."""
        match command:
            case PeerDown(peer=peer, incarnation=incarnation, stopped=False):
                self.on_away(peer, incarnation)
            case PeerUp(info=info, continues=0):
                before, _ = self._shadow.live.get(info.peer, (0, False))
                self.on_away(info.peer, before)
            case _:
                pass

    def on_recorded(self, event: Recorded) -> None:
        known = self._shadow.jobs.get(event.job)
        if known is None or known.spec.start == Start.ONCE:  # ended by persons, and kill nobody
            return
        for index in event.segment.tasks:
            task = event.job, index
            kills = self.kills(*task)
            if event.segment.cause is Cause.PEER_LOST:
                self.blamed.append(task)
                gone = len(self._gone.get(task, ()))
                demand(gone >= KILLS, "E2", f"task {task} is blamed, and {gone} peers died of it")
                demand(kills or not self.strict, "E2", f"innocent task {task} is blamed")
            else:
                is_over = _may_lapse(known.spec) and event.segment.cause is Cause.LEASE_LOST
                demand(not kills or is_over, "E2", f"task {task} kills its peer, and has a result")

    def on_reopened(self, job: JobId, tasks: TaskSet) -> None:
        for index in tasks:
            self._gone.pop((job, index), None)

    def check_end(self) -> None:
        for name, job in self._shadow.jobs.items():
            for index, cause in job.causes.items():
                is_blamed = cause is Cause.PEER_LOST
                is_blamed |= cause is Cause.LEASE_LOST and _may_lapse(job.spec)
                demand(
                    is_blamed or not self.kills(name, index),
                    "E2",
                    f"task {name}/{index} kills its peer, and is {cause}",
                )
