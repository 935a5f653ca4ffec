"""What this machine is and how busy it is, read from what the kernel shows: no process is started.

Cheap by construction: never twice within a second, and seldom enough that all readings together
take less than one part in COST_SHARE of a processor, however many processes the tasks have.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from p2psched.observe.accelerators import Accelerators
from p2psched.observe.cgroups import processor_quota
from p2psched.observe.memory import Memory
from p2psched.observe.power import Power
from p2psched.observe.processors import Processors
from p2psched.observe.readings import Roots, read_text
from p2psched.observe.traffic import Traffic

PERIOD_MS: Final = 1_000
COST_SHARE: Final = 500
SLOW_PERIOD_MS: Final = 10_000  # battery, temperature: some drivers ask a slow chip
FIND_PERIOD_MS: Final = 60_000  # accelerators come and go by hand
_MIB: Final = 1024 * 1024


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Units as in `LoadReport`."""

    cores: int = 0
    load: int = 0  # processes that run or want to, of the whole machine: hundredths
    cpu: int = 0
    foreign_cpu: int = 0
    memory: int = 0
    memory_free: int = 0
    disk_free: int = 0
    gpus: int = 0
    gpus_busy: int = 0
    npus: int = 0
    received: int = 0
    sent: int = 0
    battery: int = -1
    mains: bool = True
    temperature: int = -1
    machine: int = 0


class Sensors:
    """Of this machine, for the process `pid` and what it starts, which keeps its data in `folder`.
    `read` may take a few milliseconds, more if a device is slow: not in a loop that others wait
    for."""

    def __init__(
        self,
        folder: Path,
        *,
        roots: Roots | None = None,
        pid: int | None = None,
        allowed: Callable[[], Collection[int]] | None = None,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """`allowed`: processors that may be used, if not those that the process may."""
        roots = roots or Roots()
        pid = os.getpid() if pid is None else pid
        quota = processor_quota(roots)
        self._folder = folder
        self._cpu_ns = cpu_ns
        self._load_path = roots.proc / "loadavg"
        self._processors = Processors(roots, pid, quota=quota, allowed=allowed)
        self._memory = Memory(roots)
        self._traffic = Traffic(roots)
        self._power = Power(roots)
        self._accelerators = Accelerators(roots)
        self._due_ms = self._slow_due_ms = self._find_due_ms = -(1 << 62)
        self._last = Measured()
        self.count = 0
        self.cost_us = 0.0  # of one reading: moving average

    def read(self, now_ms: int) -> Measured:
        """The newest figures, which are new at most once a second."""
        if now_ms >= self._due_ms:
            before_ns = self._cpu_ns()
            self._look(now_ms)
            cost_us = (self._cpu_ns() - before_ns) / 1000
            self.count += 1
            self.cost_us += (cost_us - self.cost_us) / min(self.count, 8)
            self._due_ms = now_ms + max(PERIOD_MS, int(self.cost_us * COST_SHARE / 1000))
        return self._last

    def _look(self, now_ms: int) -> None:
        processors, memory, traffic = self._processors, self._memory, self._traffic
        power, accelerators = self._power, self._accelerators
        processors.look()
        memory.look()
        traffic.look(now_ms)
        accelerators.look()
        if now_ms >= self._slow_due_ms:
            self._slow_due_ms = now_ms + SLOW_PERIOD_MS
            power.look()
        if now_ms >= self._find_due_ms:
            self._find_due_ms = now_ms + FIND_PERIOD_MS
            accelerators.find()
        self._last = Measured(
            cores=processors.cores,
            load=self._load(),
            cpu=processors.busy,
            foreign_cpu=processors.foreign,
            memory=memory.total,
            memory_free=memory.free,
            disk_free=self._disk_free(),
            gpus=accelerators.gpus,
            gpus_busy=accelerators.gpus_busy,
            npus=accelerators.npus,
            received=traffic.received,
            sent=traffic.sent,
            battery=power.battery,
            mains=power.mains,
            temperature=power.temperature,
            machine=processors.machine,
        )

    def _load(self) -> int:
        first = read_text(self._load_path).split(" ", 1)[0]
        try:
            return round(float(first) * 100)
        except ValueError:
            return 0

    def _disk_free(self) -> int:
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize // _MIB
