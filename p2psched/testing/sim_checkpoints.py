"""Tasks of a simulation that save checkpoints: the executor of a peer, with what `peer.checkpoints`
is around a real one.

Which checkpoint an attempt goes on from is `core.resuming`'s to say, as for real peers. Simulated
are the disks, which outlive processes and hold the newest two of each task, the calls between
peers, and the tasks: they save after each of their steps, and the step is the length of the file.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from p2psched.core.copies import ranked, staying_peers
from p2psched.core.leasing import HoldLease
from p2psched.core.owner import StopBatch, TakeBack
from p2psched.core.resuming import Ask, Search, Take, Wait, Without, seeks
from p2psched.model.checkpoints import BYTES, Head, next_number
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Reports, Standing
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.taskset import TaskSet
from p2psched.peer.checkpoint_ends import is_over_in
from p2psched.testing.checkpoint_referee import Search as Searched
from p2psched.testing.sim_executor import BatchStops, Change, SimExecutor, Tends, Work, _Run
from p2psched.testing.sim_jobs import kills_none, with_mean
from p2psched.testing.sim_world import World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

JOBS_MAX: Final = 3
TASKS_MAX: Final = 2  # of such a job
STEPS: Final = 10  # of a task; it saves behind each but the last
TASK_US: Final = 1_500_000
CALL_US_MAX: Final = 40_000  # a question, or a checkpoint on its way
COPY_US_MAX: Final = 300_000  # from a save to its copy
COPY_AGAIN_US: Final = 1_000_000
TARGETS_MAX: Final = 3
KEPT: Final = 2
DAMAGED: Final = 0.1  # of what is put on a disk, in a third of the seeds

Task = tuple[JobId, int]


class Disks:
    """What is on the disks of all peers, by identity: who loses its disk is another one after."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"checkpoints {seed}")
        self._damaged = self._rng.choice((0.0, 0.0, DAMAGED))
        self._heads: dict[PeerId, dict[Task, list[Head]]] = {}
        self._bad: set[tuple[PeerId, Head]] = set()

    def put(self, peer: PeerId, head: Head) -> bool:
        """True if it is whole there, and stays so."""
        tasks = self._heads.setdefault(peer, {})
        known = tasks.setdefault((JobId(head.job), head.task), [])
        if head not in known:
            known.append(head)
            known.sort(key=lambda kept: (kept.grant, kept.number), reverse=True)
            del known[KEPT:]
            if self._rng.random() < self._damaged:
                self._bad.add((peer, head))
        return self.is_sound(peer, head)

    def is_sound(self, peer: PeerId, head: Head) -> bool:
        return (peer, head) not in self._bad

    def heads(self, peer: PeerId, task: Task) -> tuple[Head, ...]:
        return tuple(self._heads.get(peer, {}).get(task, ()))

    def tasks(self, peer: PeerId) -> tuple[Task, ...]:
        return tuple(self._heads.get(peer, ()))

    def remove(self, peer: PeerId, task: Task) -> None:
        self._heads[peer].pop(task, None)


class _Attempt:
    def __init__(self, batch: Batch, search: Search, searched: Searched) -> None:
        self.batch = batch
        self.task: Task = (batch.job, batch.tasks.first)
        self.search = search
        self.searched = searched  # the same, as the referee sees it
        self.fetches: Take | None = None
        self.late: list[PeerId] = []  # they answered while it fetched what it had chosen
        self.step = 0
        self.copied: tuple[int, int] | None = None
        self.holder: PeerId | None = None
        self.copies = False  # that is on its way


class SavingExecutor(SimExecutor):
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World, rng: random.Random) -> None:
        super().__init__(
            peer.slots,
            rng,
            lambda delay_us, item: world.later(delay_us, peer, item),
            lambda batch, index: world.on_started(peer, batch, index),
            has_space=lambda: not peer.is_full,
            watch=peer.watch,
            now_us=lambda: world.now_us,
        )
        self._peer = peer
        self._world = world
        self._draws = random.Random(f"saves {peer.id} {peer.process}")
        self._preparing: dict[int, _Attempt] = {}
        self._saving: dict[int, _Attempt] = {}
        self._unstarted: dict[int, TaskSet] = {}

    # --- before an attempt ---

    def start(self, batch: Batch) -> None:
        if not batch.spec.checkpoint:
            super().start(batch)
            return
        me, rows, now_ms = self._peer.id, self._peer.state.peers, self._peer.now_ms
        task = batch.job, batch.tasks.first
        live = [peer for peer, row in rows.items() if row.live and peer != me]
        away = [peer for peer, row in rows.items() if not row.live and peer != me]
        own, has_run = self._world.saved.heads(me, task), batch.attempt > 1
        search = Search(me, own, live=live, away=away, has_run=has_run, now_ms=now_ms)
        searched = Searched(me, task, live, away, has_run=has_run, now_ms=now_ms)
        attempt = self._preparing[batch.id] = _Attempt(batch, search, searched)
        self._world.happened["attempts that look for checkpoints"] += 1
        self._go_on(attempt)

    def _go_on(self, attempt: _Attempt) -> None:
        batch, saved = attempt.batch.id, self._world.saved
        while attempt.fetches is None:
            now_ms = self._peer.now_ms
            match attempt.search.next(now_ms):
                case Ask(peers=peers):
                    for peer in peers:
                        self._tend(batch, "asked", peer)
                case Wait(until_ms=until_ms):
                    self._later(max(1, until_ms - now_ms) * 1000, Tends(batch, "looks"))
                    return
                case Take(head=head, peer=peer) as take:
                    if peer != self._peer.id:
                        attempt.fetches = take
                        self._tend(batch, "fetches")
                    elif saved.is_sound(peer, head):
                        self._begin_at(attempt, head)
                        return
                    else:
                        self._world.happened["checkpoints damaged"] += 1
                        attempt.search.on_bad(head, peer, damaged=True)
                case Without():
                    self._begin_at(attempt, None)
                    return

    def _begin_at(self, attempt: _Attempt, head: Head | None) -> None:
        batch = attempt.batch
        del self._preparing[batch.id]
        self._saving[batch.id] = attempt
        self._world.happened["attempts resumed"] += head is not None
        self._world.referees.checkpoints.on_begun(attempt.searched, head, self._peer.now_ms)
        attempt.step = 0 if head is None else head.body_bytes
        super().start(batch)

    def _fetch(self, attempt: _Attempt) -> None:
        take, attempt.fetches = attempt.fetches, None
        assert take is not None
        head, peer, saved = take.head, take.peer, self._world.saved
        is_there = self._world.reaches(self._peer.id, peer)
        if not is_there or head not in saved.heads(peer, attempt.task):
            attempt.search.on_bad(head, peer, damaged=False)
            attempt.searched.on_broken(peer)
        elif not saved.is_sound(peer, head):
            self._world.happened["checkpoints damaged"] += 1
            attempt.search.on_bad(head, peer, damaged=True)
        else:
            self._keep(self._peer.id, head)
            self._begin_at(attempt, head)
            return
        self._tell_heard(attempt)
        self._go_on(attempt)

    def _tell_heard(self, attempt: _Attempt) -> None:
        """Whose word counts for the next choice."""
        for peer in attempt.late:
            self._world.referees.checkpoints.on_heard(attempt.searched, peer)
        attempt.late.clear()

    def change(self, wanted: Change) -> None:
        attempt = None if isinstance(wanted, TakeBack) else self._preparing.get(wanted.batch)
        if attempt is None:
            super().change(wanted)
        elif isinstance(wanted, HoldLease):
            attempt.batch = replace(attempt.batch, until_ms=wanted.until_ms)
        elif isinstance(wanted, StopBatch):
            del self._preparing[wanted.batch]
            self._unstarted[wanted.batch] = attempt.batch.tasks
            self._later(1, Tends(wanted.batch, "unstarted"))

    def standing(self) -> Standing:
        inner = super().standing()
        batches = inner.batches | self._preparing.keys() | self._unstarted.keys()
        return Standing(batches, (*inner.unbegun, *map(seeks, self._preparing)))

    # --- what is due ---

    def on_due(self, item: Work) -> list[ExecutorEvent]:
        if isinstance(item, Tends):
            return self._on_tended(item)
        attempt = self._saving.get(item.batch) if isinstance(item, BatchStops) else None
        if attempt is not None:  # it is told of once its last one is elsewhere, if that can be
            self._copy(attempt)
        events = super().on_due(item)
        for event in events:
            if isinstance(event, Ended):
                self._saving.pop(event.batch, None)
        return events

    def _on_tended(self, item: Tends) -> list[ExecutorEvent]:
        if item.what == "unstarted":
            return [Ended(item.batch, self._unstarted.pop(item.batch))]
        attempt = self._preparing.get(item.batch)
        if attempt is None:
            self._on_saving(item)
        elif item.what == "fetches":
            self._fetch(attempt)
        else:
            if item.peer and self._world.reaches(self._peer.id, PeerId(item.peer)):
                peer = PeerId(item.peer)
                attempt.search.on_heads(peer, self._world.saved.heads(peer, attempt.task))
                attempt.late.append(peer)
            if attempt.fetches is None:
                self._tell_heard(attempt)
            self._go_on(attempt)
        return []

    def _tend(self, batch: int, what: str, peer: str = "") -> None:
        delay_us = 1 + int(self._draws.random() * CALL_US_MAX)
        self._later(delay_us, Tends(batch, what, peer))

    # --- while it runs ---

    def _begin(self, run: _Run) -> None:
        super()._begin(run)
        attempt = self._saving.get(run.batch.id)
        if attempt is not None and run.now and attempt.step < STEPS - 1:
            self._later(_step_us(run, attempt), Tends(run.batch.id, "saves"))

    def _busy_us(self, run: _Run, whole_us: int) -> int:
        attempt = self._saving.get(run.batch.id)
        return whole_us if attempt is None else max(1, whole_us * (STEPS - attempt.step) // STEPS)

    def _on_saving(self, item: Tends) -> None:
        attempt, run = self._saving.get(item.batch), self._runs.get(item.batch)
        if attempt is None or run is None or run.stopping:
            return
        if item.what == "copies":
            attempt.copies = False
            self._copy(attempt)
        elif item.what == "saves":
            self._save(attempt)
            if attempt.step < STEPS - 1:
                self._later(_step_us(run, attempt), item)

    def _save(self, attempt: _Attempt) -> None:
        me, (job, task) = self._peer.id, attempt.task
        attempt.step += 1
        number = next_number([head.key for head in self._world.saved.heads(me, attempt.task)])
        self._keep(me, Head(job, task, attempt.batch.grant, number, 0, attempt.step, BYTES))
        self._copy_later(attempt, int(self._draws.random() ** 2 * COPY_US_MAX))

    def _keep(self, peer: PeerId, head: Head) -> None:
        self._world.happened["checkpoints kept"] += 1
        is_sound = self._world.saved.put(peer, head)
        self._world.referees.checkpoints.on_kept(peer, head, is_sound=is_sound)

    def _copy_later(self, attempt: _Attempt, delay_us: int) -> None:
        if not attempt.copies:
            attempt.copies = True
            self._later(1 + delay_us, Tends(attempt.batch.id, "copies"))

    def _copy(self, attempt: _Attempt) -> None:
        """The newest, to the peer that has the one before if that may be."""
        me, world = self._peer.id, self._world
        heads = world.saved.heads(me, attempt.task)
        if not heads or heads[0].key == attempt.copied:
            return
        name = f"{attempt.batch.job}/{attempt.task[1]}".encode()
        takers = ranked(name, [peer for peer in staying_peers(self._peer.state) if peer != me])
        for peer in sorted(takers, key=lambda peer: peer != attempt.holder)[:TARGETS_MAX]:
            if world.reaches(me, peer) and world.saved.is_sound(me, heads[0]):
                self._keep(peer, heads[0])
                world.happened["checkpoints copied"] += 1
                attempt.copied, attempt.holder = heads[0].key, peer
                return
        self._copy_later(attempt, COPY_AGAIN_US)

    # --- what nobody needs any more ---

    def look(self) -> list[Reports]:
        found, me, state = super().look(), self._peer.id, self._peer.state
        for job, task in self._world.saved.tasks(me):
            is_known = job in state.jobs or job in state.forgotten
            if is_known and is_over_in(state, job, task) and not self._runs_here((job, task)):
                self._world.saved.remove(me, (job, task))
        return found

    def _runs_here(self, task: Task) -> bool:
        return any(a.task == task for a in [*self._preparing.values(), *self._saving.values()])


def _step_us(run: _Run, attempt: _Attempt) -> int:
    """How long one step takes; those that hang do nothing after their first ones."""
    _, _, busy_us = run.now[0]
    return max(1, busy_us // max(1, STEPS - attempt.step)) if busy_us else 1


class Savings:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, world: World, seed: int, *, wanted: bool) -> None:
        self._world = world
        self._rng = random.Random(f"jobs with checkpoints {seed}")
        self._jobs_left = self._rng.choice((0, 0, JOBS_MAX)) * wanted
        self.count = 0  # of tasks

    def draw(self, spec: JobSpec) -> JobSpec:
        is_fit = isinstance(spec.work, ProgramWork) and kills_none(spec.name)
        if not self._jobs_left or not is_fit or spec.backs_up or spec.hold is not None:
            return spec
        self._jobs_left -= 1
        self._world.happened["job that saves checkpoints"] += 1
        tasks = spec.tasks.take(TASKS_MAX)
        self.count += len(tasks)
        name = with_mean(spec.name, TASK_US)
        return msgspec.structs.replace(spec, tasks=tasks, name=name, checkpoint="state")
