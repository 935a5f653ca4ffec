"""What runs on the hosts of a pool: batches are queued, launched, fed, watched and settled here.

A batch beyond the slots waits in the queue, or stands ready at a busy worker if it is known to be
short: so one message brings many and another one their results. If what runs before it takes longer
than thought it comes back to the queue; if it shall not run any more it is taken back, too. In both
cases it has not begun, and nothing that runs is disturbed.

Knows nothing of the starter's life: the pool says when hosts can be had (`go`) and when one is dead
(`on_exit`). Batches without blobs take no detour: `start` sends them at once if a slot is free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from p2psched.model import execution
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Progress, Standing
from p2psched.model.job import Cause, FunctionWork, blobs_of
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.ports.blobs import Blobs
from p2psched.ports.executor import OnExecutorEvent
from p2psched.run.adoption import Adopter
from p2psched.run.arguments import ArgumentReader, Part, inline_part
from p2psched.run.blame import blame
from p2psched.run.handed import LOOK_S, Running
from p2psched.run.host import frames
from p2psched.run.host.shared import State, pieces
from p2psched.run.host_handle import HostHandle, is_small, refusal
from p2psched.run.hosts import Hosts
from p2psched.run.looks import Looks
from p2psched.run.renewal import renew
from p2psched.run.standing import has_begun, standing
from p2psched.run.supply import Lack, Ready, Supply

_STOPS: Final = frozenset(
    {Cause.CANCELLED, Cause.PEER_LOST, Cause.TIMEOUT, Cause.OVERTAKEN, Cause.LEASE_LOST}
)
# When no host can be had, it is tried again after this.
RESTART_S: Final = 0.1
# A host that has not ended a batch this long after its grace is killed.
STOP_MARGIN_S: Final = 0.7


class Dispatcher:
    def __init__(
        self, *, slots: int, blobs: str, grace_s: float, on_event: OnExecutorEvent
    ) -> None:
        """`blobs` is the folder of this peer's blobs, or empty."""
        self._slots = slots
        self.hosts = Hosts(slots=slots, blobs=blobs, on_frame=self._on_host_frame)
        self._grace_s = grace_s
        self._on_event = on_event
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[Batch] = deque()
        self._running: dict[int, HostHandle] = {}  # batch -> its host
        self._supply: Supply | None = None
        self._adopter: Adopter | None = None
        self._up = self._ending = False  # hosts can be had; nothing is told any more
        self._hosts_lost = self._tasks_ended = 0
        self.looks = Looks(
            *(self.hosts, self._running, self._take_back, self._emit),
            report_notes=self._report_notes,
            dispatch=self.dispatch,
        )

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that all of this happens in; once, before anything starts."""
        self._loop = loop

    async def keep(self, blobs: Blobs, spill: Path) -> None:
        """Moves large data beside what runs, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._supply = Supply(ArgumentReader(blobs), group)
            self._adopter = Adopter(blobs, spill, self._emit)
            await self._adopter.run()

    def go(self) -> None:
        """Hosts can be had: start what waits."""
        self._up = True
        self.dispatch()

    def hold(self) -> None:
        """No hosts for now."""
        self._up = False

    def end(self) -> None:
        """For ever: nothing is told any more."""
        self._ending = True

    def statistics(self) -> dict[str, int]:
        return {
            "slots": self._slots,
            "batches_running": len(self._running),
            "batches_queued": len(self._queue) + (len(self._supply) if self._supply else 0),
            "tasks_ended": self._tasks_ended,
            "hosts_lost": self._hosts_lost,
        }

    def running(self) -> Iterator[tuple[HostHandle, Running]]:
        for batch, host in self._running.items():
            yield host, host.batches[batch]

    def standing(self) -> Standing:
        """What is here, and what of it has not begun."""
        room = self._slots - self.hosts.slots_used
        supply, adopter = self._supply, self._adopter
        queue, running = self._queue, self._running
        return standing(queue, running, room=room, up=self._up, supply=supply, adopter=adopter)

    def renew_hosts(self, batches: Collection[int]) -> None:
        """End the hosts that should have begun these batches, and have begun none."""
        for host in {host for number, host in self._running.items() if number in batches}:
            self._take_back(host)
            if not any(has_begun(host, running) for running in host.batches.values()):
                self.hosts.kill(host, 0.0)
        self.dispatch()

    def start(self, batch: Batch) -> None:
        assert batch.id not in self._running, "a batch is started once"
        if self._ending:
            return
        if blobs_of(batch.spec.work):
            if self._supply is None:
                lack = Lack("this peer has no store for large data yet")
                self._refuse(batch.id, batch.tasks, lack)
                return
            if not self._supply.is_at_hand(batch):
                self._supply.get_ready(batch, self._on_ready)
                return
        self._queue.append(batch)
        self.dispatch()

    def stop(self, batch: int, cause: Cause) -> None:
        assert cause in _STOPS, cause
        host = self._running.get(batch)
        if host is not None:
            if host.batches[batch].stopping:
                return
            self._take_back(host)
        if batch in self._running:
            assert host is not None
            self._end_begun(host, host.batches[batch])
        else:
            self._end_waiting(batch)
        if host is not None:
            self.dispatch()  # what else came back

    def renew(self, batch: int, until_ms: int) -> None:
        renew(batch, until_ms, running=self._running, queue=self._queue, supply=self._supply)

    def _end_waiting(self, batch: int) -> None:
        """End a batch that no host has."""
        found = [queued for queued in self._queue if queued.id == batch]
        for queued in found:
            self._queue.remove(queued)
        waiting = self._supply.cancel(batch) if self._supply is not None else None
        if found or waiting is not None:
            self._emit(Ended(batch, (waiting or found[0]).tasks))

    def _end_begun(self, host: HostHandle, running: Running) -> None:
        state = host.shared.read()
        if state is not None and not self._report_notes(host, state):
            return
        if not running.left:  # it is over, and its host is about to say so
            return
        running.stopping = True
        if host.functions:
            self.hosts.kill_for(running, host, running.grace_s)
            return
        host.channel.send(frames.frame(frames.STOP, frames.BATCH.pack(running.batch.id)))
        assert self._loop is not None
        running.timer = self._loop.call_later(
            running.grace_s + STOP_MARGIN_S, self.hosts.kill_for, running, host, 0.0
        )

    def take_back(self) -> None:
        """Give back what has not begun, so that it may go elsewhere. What must not start twice, or
        saves checkpoints, has a slot, and stays."""
        for host in list(dict.fromkeys(self._running.values())):
            if all(_may_leave(running.batch) for running in host.batches.values()):
                self._take_back(host)
        for batch in [queued for queued in reversed(self._queue) if _may_leave(queued)]:
            self._queue.remove(batch)
            self._emit(Ended(batch.id, batch.tasks))
        self._emit(execution.TakenBack())
        self.dispatch()

    def _take_back(self, host: HostHandle) -> None:
        """Bring what has not begun at this host to the head of the queue. What came with blobs ends
        unstarted: whoever wants it started gets them ready again. The end of a batch that has begun
        is given back."""
        found = host.desk.take_back()
        for number in reversed(found):
            running = host.batches[number]
            if found[number] < running.legs:
                rest = running.left & running.behind(found[number])
                running.left -= rest
                self._emit(execution.GaveBack(number, rest))
                continue
            host.release(running)
            if running.supplied:
                self._finish(running, EMPTY)
            else:
                del self._running[number]
                self._queue.appendleft(running.batch)

    # --- batches

    def dispatch(self) -> None:
        """Start what can start, in order: a batch that needs many slots is not overtaken."""
        if not self._queue and self.hosts.slots_used < self._slots:
            for full in self.hosts.with_long_ready():
                self._take_back(full)
        while self._up and not self._ending and self._queue:
            used = self.hosts.slots_used
            host = None
            if used and used + self._queue[0].spec.cpus > self._slots:
                host = self.hosts.with_room(self._queue[0])
                if host is None:
                    return
            if not self._launch(self._queue.popleft(), host):
                return

    def _launch(self, batch: Batch, host: HostHandle | None) -> bool:
        """Hand a batch to an idle host, or to a busy one ahead. False if that can't be now."""
        work = batch.spec.work
        ready = self._supply.take(batch.id) if self._supply is not None else None
        if ready is not None:
            part, rest = ready
        elif isinstance(work, FunctionWork):
            try:
                part = inline_part(work, batch.tasks)
            except ValueError as error:
                lack = Lack(f"the job's arguments can't be read: {error}")
                self._refuse(batch.id, batch.tasks, lack)
                return True
        else:
            part = Part([], batch.tasks, last=True)
        if host is not None and not is_small(batch, part):
            self._put_back(batch, ready)  # it waits for an idle host
            return False
        assert self._loop is not None
        try:
            host = host or self.hosts.find(self._loop, batch)
        except OSError:
            # No descriptors, or the starter is going: what runs may go on, this waits.
            self._put_back(batch, ready)
            self._loop.call_later(RESTART_S, self.dispatch)
            return False
        is_idle = not host.batches
        self._running[batch.id] = host
        supplied = ready is not None
        running = host.run(batch, part=part, grace_s=self._grace_s, supplied=supplied)
        self.looks.begin(self._loop)
        if not part.last and ready is not None:
            running.rest = rest
        if host.functions and is_idle:
            self.looks.at(host, LOOK_S)
        return True

    def _put_back(self, batch: Batch, ready: Ready | None) -> None:
        self._queue.appendleft(batch)
        if ready is not None and self._supply is not None:
            self._supply.give_back(batch.id, ready)

    def _on_ready(self, batch: Batch, lack: Lack | None) -> None:
        """A batch with large data has its first part here, or can't have it."""
        if lack is not None:
            self._refuse(batch.id, batch.tasks, lack)
        else:
            self._queue.append(batch)
            self.dispatch()

    def _feed(self, host: HostHandle, running: Running) -> None:
        """Give a worker the next part of its batch."""
        assert self._supply is not None
        assert running.rest is not None
        running.is_fed = True

        def on_part(part: Part | Lack) -> None:
            running.is_fed = False
            if running.batch.id not in host.batches or running.stopping:
                return
            if isinstance(part, Lack):
                host.release(running)
                self._refuse(running.batch.id, running.left, part, running)
                return
            host.feed(running, part)
            self.looks.at(host, LOOK_S)

        self._supply.next(running.batch.id, running.rest, on_part)

    def _refuse(
        self, batch: int, tasks: TaskSet, lack: Lack, running: Running | None = None
    ) -> None:
        """Tasks that can't start end a batch."""
        self._emit(refusal(batch, tasks, lack.text, lack.cause))
        if running is None:
            self._emit(Ended(batch, EMPTY))
        else:
            running.left = EMPTY
            self._finish(running, EMPTY)

    # --- what hosts say

    def _on_host_frame(self, host: HostHandle, kind: int, body: bytes) -> None:
        if kind != frames.RESULTS:
            raise ValueError(f"a host sends results, not frames of kind {kind}")
        batch, over, ended, new = frames.open_results(body)
        running = host.batches.get(batch)
        if running is None:
            if batch not in host.settled:
                raise ValueError(f"results of batch {batch}, which this host does not have")
            if over:
                host.settled.remove(batch)
            return
        host.is_slow = False
        self._report(running, new)
        if over:
            host.release(running)
            self._finish(running, TaskSet.of(ended, ended + 1) if ended >= 0 else EMPTY)
        elif running.is_hungry:
            host.look_later(None, lambda: None)
            self._feed(host, running)
            return
        if host.functions and host.batches and host.aimed_at is None:
            self.looks.at(host, LOOK_S)

    def _report(self, running: Running, new: list[frames.Piece]) -> None:
        if self._adopter is None and any(piece[2] == frames.OK_WITH_BLOBS for piece in new):
            raise ValueError("a host names blobs, and this peer keeps none")
        whole, large = running.accept(new)
        self._tasks_ended += sum(len(segment.tasks) for segment in (*whole, *large))
        if whole:
            self._emit(Progress(running.batch.id, tuple(whole)))
        if large:
            assert self._adopter is not None
            self._adopter.add(Progress(running.batch.id, tuple(large)))

    def _finish(self, running: Running, ran: TaskSet) -> None:
        """The last event of a batch. `ran` began, and has no result."""
        running.disarm()
        del self._running[running.batch.id]
        if running.rest is not None and self._supply is not None:
            self._supply.cancel(running.batch.id)
        ended = Ended(running.batch.id, running.left - ran)
        if self._adopter is not None and self._adopter.holds(ended.batch):
            self._adopter.add(ended)  # behind the results that wait there
        else:
            self._emit(ended)
        self.dispatch()

    def _report_notes(self, host: HostHandle, state: State) -> bool:
        """What a worker has finished and not sent, and which batches are over by that. False if its
        notes are damaged, and it is ended."""
        try:
            for number, new in pieces(state.records).items():
                running = host.batches.get(number)
                if running is not None:
                    self._report(running, new)
        except ValueError:
            self.hosts.kill(host, 0.0)
            return False
        for number, running in list(host.batches.items()):
            if number != state.batch and not running.left:
                host.settled.add(number)
                host.release(running)
                self._finish(running, EMPTY)
        return True

    def on_exit(self, host: HostHandle, code: int, item: bytes) -> None:
        """A host is dead. Its batches are settled from what it sent and what it noted."""
        self._hosts_lost += not host.ended_by_us
        host.channel.drain()
        state = host.shared.read()
        self.hosts.forget(host)
        noted = {} if state is None else pieces(state.records)
        for number, running in list(host.batches.items()):
            host.release(running)
            with contextlib.suppress(ValueError):  # its notes are damaged: they tell nothing
                self._report(running, noted.get(number, []))
            ended, ran = blame(host, running, state, code, item)
            self._report(running, ended)
            self._finish(running, ran)
        self.dispatch()

    def _emit(self, event: ExecutorEvent) -> None:
        if not self._ending:
            self._on_event(event)


def _may_leave(batch: Batch) -> bool:
    return not (batch.spec.start or batch.spec.checkpoint)
