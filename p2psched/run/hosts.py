"""The hosts of a pool: which there are, which is free for a batch, and how one is ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from p2psched.model.execution import Batch
from p2psched.model.job import ProgramWork
from p2psched.run.handed import Running
from p2psched.run.host import frames
from p2psched.run.host_handle import HostHandle
from p2psched.run.means import NOTHING
from p2psched.run.starter_link import StarterLink

# After so long without a batch a host ends. A worker may keep what tasks have loaded, a model
# perhaps; a spawner keeps nothing.
WORKER_IDLE_S: Final = 600.0
SPAWNER_IDLE_S: Final = 5.0
# A worker that was busy for less in all has loaded nothing that took longer. Idle for this long, it
# makes room for a spawner.
LIGHT_BUSY_S: Final = 1.0
LIGHT_IDLE_S: Final = 1.0


class Hosts:
    """At most one worker and one spawner a slot, but for those that are told to end."""

    def __init__(
        self,
        *,
        slots: int,
        blobs: str,
        on_frame: Callable[[HostHandle, int, bytes], None],
    ) -> None:
        self._slots = slots
        self._blobs = blobs
        self._on_frame = on_frame
        self._hosts: dict[int, HostHandle] = {}
        self._next_number = 1
        self.means = NOTHING  # to bound tasks with
        self._link: StarterLink | None = None

    def __iter__(self) -> Iterator[HostHandle]:
        return iter(list(self._hosts.values()))

    def use(self, link: StarterLink) -> None:
        """From now on hosts are forked by this starter."""
        self._link = link

    def get(self, number: int) -> HostHandle | None:
        return self._hosts.get(number)

    def forget(self, host: HostHandle) -> None:
        """It is dead."""
        host.close()
        del self._hosts[host.number]

    def find(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> HostHandle:
        """An idle host of the right kind, or a new one. Raises OSError if there can't be one."""
        work = batch.spec.work
        functions = not isinstance(work, ProgramWork)
        cpus = batch.spec.cpus
        isolation = batch.spec.isolation if functions else None
        leased = bool(batch.until_ms)
        same = [host for host in self if host.functions is functions and not host.retired]
        idle = [host for host in same if not host.batches]
        for host in idle:
            if (host.cpus, host.isolation, host.leased) == (cpus, isolation, leased):
                return host
        if idle and len(same) >= self._slots:
            # Its libraries may have sized their thread pools already: it can't change.
            self.kill(idle[0], 0.0)
        if self._link is None:
            raise OSError("there is no starter")
        if not functions:
            self._make_room(time.monotonic())
        number, self._next_number = self._next_number, self._next_number + 1
        host = HostHandle(
            loop,
            number=number,
            functions=functions,
            by_value=not isinstance(work, ProgramWork) and not work.path,
            cpus=cpus,
            blobs=self._blobs,
            isolation=isolation,
            leased=leased,
            means=self.means.words(),
            fork=self._link.channel.send_descriptors,
            on_frame=self._on_frame,
            on_closed=self._on_closed,
        )
        self._hosts[number] = host
        return host

    def _make_room(self, now_s: float) -> None:
        """Before one more host comes: not more than slots, but for workers worth keeping."""
        here = [host for host in self if not host.retired]
        light = [host for host in here if _is_light(host, now_s)]
        for host in light[: max(0, len(here) + 1 - self._slots)]:
            self.kill(host, 0.0)

    @property
    def slots_used(self) -> int:
        used = 0
        for host in self._hosts.values():  # at each step of each batch
            if host.batches:
                used += host.cpus
        return used

    def with_room(self, batch: Batch) -> HostHandle | None:
        """A busy host where a short batch may stand ready: the one that has least to do."""
        functions = not isinstance(batch.spec.work, ProgramWork)
        found: HostHandle | None = None
        for host in self._hosts.values():
            less = found is None or host.load_us < found.load_us
            if less and host.functions is functions and host.batches and host.has_room(batch):
                found = host
        return found

    def with_long_ready(self) -> list[HostHandle]:
        """Those where more than a little stands ready behind what runs."""
        return [host for host in self._hosts.values() if host.has_long_ready]

    def kill(self, host: HostHandle, grace_s: float) -> None:
        """SIGTERM to its group, after `grace_s` SIGKILL. The starter says when it is dead."""
        host.ended_by_us = True
        self._end(host, grace_s)

    def kill_for(self, running: Running, host: HostHandle, grace_s: float) -> None:
        """End a host because of one of its batches."""
        host.aimed_at = running.batch.id
        host.look_later(None, lambda: None)
        self.kill(host, grace_s)

    def end_idle(self, now_s: float) -> None:
        """By the monotonic clock. Often enough."""
        for host in self:
            is_kept = host.functions and not host.leased  # that is looked at all the time
            limit_s = WORKER_IDLE_S if is_kept else SPAWNER_IDLE_S
            if not host.batches and not host.retired and now_s - host.idle_at_s >= limit_s:
                self.kill(host, 0.0)

    def watch(self, host: HostHandle, running: Running, index: int) -> None:
        """Have the starter empty its output until its task is over, and show it."""
        batch = running.batch
        which = frames.WATCHED.pack(host.number, batch.id, index, batch.grant)
        self._tell(frames.frame(frames.WATCH, which, batch.job.encode()))

    def _on_closed(self, host: HostHandle) -> None:
        """It is dead, and the starter will say how; or it closed our socket, and must end."""
        self._end(host, 0.0)

    def _end(self, host: HostHandle, grace_s: float) -> None:
        host.retired = True
        self._tell(frames.frame(frames.KILL, frames.HOST_NUMBER.pack(host.number, grace_s)))

    def _tell(self, data: bytes) -> None:
        if self._link is not None:
            self._link.channel.send(data)


def _is_light(host: HostHandle, now_s: float) -> bool:
    is_idle = not host.batches and now_s - host.idle_at_s >= LIGHT_IDLE_S
    return host.functions and is_idle and host.busy_s < LIGHT_BUSY_S
