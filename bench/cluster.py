"""A real cluster on loopback for measuring: peers are processes, started as a user starts them."""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil

import bench
import p2psched
from bench.memory import peak_mib
from p2psched import Client
from p2psched.model.errors import P2PSchedError
from p2psched.model.status_messages import StatusAnswer

READY_TIMEOUT_S = 90.0  # a machine with all cores busy is slow to start processes
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Cluster:
    """Peers with the given slots, and other options of `start`; the first one founds the
    cluster."""

    def __init__(self, slots: Sequence[int], options: Sequence[str] = ()) -> None:
        _compile()
        self.slots = slots
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="p2psched-bench-"))
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in slots]
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def runtime_dir(self) -> Path:
        return self.folder / "run"

    def data(self, number: int) -> Path:
        return self.folder / f"bench{number}"

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in self.processes)

    def client(self, number: int = 0) -> Client:
        return Client(self.addresses[number], runtime_dir=self.runtime_dir)

    async def start(self) -> None:
        for number in range(len(self.slots)):
            self.processes.append(self._start_peer(number))
            await self.wait_whole(number + 1)

    async def start_many(self, first: int, at_once: int) -> None:
        """The first few one by one, the others without waiting for each, `at_once` at a time."""
        for number in range(len(self.slots)):
            self.processes.append(self._start_peer(number))
            if number < first or number % at_once == 0 or number + 1 == len(self.slots):
                await self.wait_whole(number + 1)

    def _start_peer(self, number: int) -> subprocess.Popen[bytes]:
        name = f"bench{number}"
        command = [sys.executable, "-m", "p2psched", "start", "--name", name]
        command += ["--data", str(self.data(number)), "--slots", str(self.slots[number])]
        command += self._options
        command += ["--listen", self.addresses[number]]
        command += self._joining(number)
        return self._spawn(command, self.folder / f"{name}.log")

    def _joining(self, number: int) -> list[str]:
        """How a peer learns of the others, at its first start."""
        return ["--join", self.addresses[0]] if number and len(self.processes) == number else []

    def kill(self, pid: int) -> int:
        """kill -9 of the peer alone. Returns its number."""
        number = next(n for n, process in enumerate(self.processes) if process.pid == pid)
        self.processes[number].kill()
        self.processes[number].wait()
        return number

    def restart(self, number: int) -> None:
        self.processes[number] = self._start_peer(number)

    def _spawn(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "P2PSCHED_RUNTIME_DIR": str(self.runtime_dir)}
        with log.open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    async def wait_whole(self, count: int) -> None:
        """Until so many peers are alive, as the processes that run now, and three of them vote.
        Raises TimeoutError with what the peers said last."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await self._is_whole(count):  # noqa: ASYNC110 (other processes)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            said = (log.read_text()[-500:].strip() for log in sorted(self.folder.glob("*.log")))
            raise TimeoutError(
                f"no cluster of {count} within {READY_TIMEOUT_S:g} s: {' | '.join(said)}"
            ) from None

    async def _is_whole(self, count: int) -> bool:
        try:
            async with self.client() as client:
                peers = await client.peers()
        except P2PSchedError:
            return False
        voters = sum(peer.role in ("leader", "voter") for peer in peers)
        alive = {peer.info.pid for peer in peers if peer.state == "alive"}
        return alive == self.pids and len(alive) == count and (count < 3 or voters >= 3)

    async def number_of(self, role: str) -> int:
        """Of the leader, or of the first other voter. Raises TimeoutError if there is none."""
        async with asyncio.timeout(READY_TIMEOUT_S), self.client() as client:
            while True:
                found = {peer.info.pid for peer in await client.peers() if peer.role == role}
                for number, process in enumerate(self.processes):
                    if process.pid in found:
                        return number
                await asyncio.sleep(0.05)

    async def statuses(self) -> list[StatusAnswer]:
        """What each peer says of itself."""
        found = []
        for number in range(len(self.processes)):
            async with self.client(number) as client:
                found.append(await client.status())
        return found

    async def wait_agreed(self) -> None:
        """Until all peers have applied as much, with the same outcome. Raises TimeoutError."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                found = await self.statuses()
                if len({status.applied_index for status in found}) == 1:
                    break
                await asyncio.sleep(0.02)
        assert len({status.state_hash for status in found}) == 1, found

    async def syncs(self) -> float:
        """Groups of their logs that all peers have made durable since they started."""
        return sum(status.syncs for status in await self.statuses())

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def family(self, number: int) -> list[psutil.Process]:
        """A peer with its starter and workers."""
        peer = psutil.Process(self.processes[number].pid)
        return [peer, *peer.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds so far of all peers, and of all that they started."""
        return sum(family_cpu_s(process.pid) for process in self.processes)

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of each process now, by peer and age."""
        found = {}
        for number in range(len(self.processes)):
            for age, process in enumerate(self.family(number)):
                with contextlib.suppress(psutil.Error):
                    found[f"peer{number}_process{age}"] = process.memory_info().rss / 2**20
        return found

    def reset_peaks(self) -> None:
        """`peaks_mib` counts from now on."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peaks_mib(self) -> dict[str, float]:
        """The most resident memory of each peer, without its workers."""
        return {
            f"peer{number}_peak_mib": peak_mib(process.pid)
            for number, process in enumerate(self.processes)
        }

    def sync_times_us(self, count: int) -> list[float]:
        """What one small append with fdatasync costs where the peers keep their logs."""
        path = os.path.join(self.folder, "sync-probe")  # noqa: PTH118 (beside os.open)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        times = []
        try:
            for _ in range(count):
                started = time.perf_counter()
                os.write(descriptor, b"x" * 300)
                os.fdatasync(descriptor)
                times.append((time.perf_counter() - started) * 1e6)
        finally:
            os.close(descriptor)
            os.unlink(path)  # noqa: PTH108 (beside os.open)
        return times


@functools.cache
def _compile() -> None:
    """As pip leaves a package. In a checkout, where no byte code shall be written, each peer would
    compile all of it anew, and keep 1.5 MiB of what that took."""
    for package in (p2psched, bench):
        assert package.__file__ is not None
        compileall.compile_dir(Path(package.__file__).parent, quiet=2)


def family_cpu_s(pid: int, *, but: frozenset[int] = frozenset()) -> float:
    """CPU seconds so far of a process and all its descendants, dead ones included; but for some
    children and what is theirs. From /proc and not by psutil, which reads every process there is
    to find those of one: at each measurement that would be a part of what is measured."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(word)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for word in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    total = sum(map(int, fields[11:15])) / _TICKS_A_SECOND
    return total + sum(family_cpu_s(child) for child in children if child not in but)


def pss_mib(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 2**20


@contextlib.asynccontextmanager
async def running(slots: Sequence[int], options: Sequence[str] = ()) -> AsyncIterator[Cluster]:
    cluster = Cluster(slots, options)
    try:
        await cluster.start()
        yield cluster
    finally:
        cluster.stop()


def free_port() -> int:
    """Out of the range that the system takes from for who connects: it might take the port before
    it is bound, or while a killed peer is away."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest // 3, lowest)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
