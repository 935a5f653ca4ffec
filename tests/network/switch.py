"""A faulty network between namespaces: a switch in user space that every packet passes through.

Each namespace, and this process's own, has one TUN device; what comes out of one is delayed,
dropped, doubled, reordered or cut on its way to the other, for each direction apart, by one seed.
Needs root and /dev/net/tun; touches no network but its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = ""  # the side of the process that runs the switch
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000
_CLONE_NEWNET: Final = 0x40000000
_MTU: Final = 1400
_PACKETS_A_TURN: Final = 64
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Weather:
    """Of one direction of one link. Shares are of packets."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # more or less than that
    loss: float = 0.0
    doubled: float = 0.0
    hurried: float = 0.0  # sent at once, ahead of those that are delayed


@dataclass(slots=True)
class Counts:
    passed: int = 0
    lost: int = 0
    cut: int = 0
    doubled: int = 0


CLEAR: Final = Weather()


def why_not() -> str:
    """The reason for which there can be no switch here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2: apt-get install iproute2"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    name = f"p2psched-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode:
        return f"can't make a network namespace: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@dataclass(slots=True)
class Switch:
    """A context manager. Change `weather`, `cuts` and `default` at any time, from any thread."""

    names: Sequence[str]
    subnet: int = 99  # of 10.*.0.0/24
    seed: int = 0
    default: Weather = CLEAR
    weather: dict[tuple[str, str], Weather] = field(default_factory=dict)  # (from, to)
    cuts: frozenset[tuple[str, str]] = frozenset()  # (from, to)
    counts: Counts = field(default_factory=Counts)
    _devices: dict[str, int] = field(default_factory=dict)
    _sides: dict[bytes, str] = field(default_factory=dict)  # address -> name
    _thread: threading.Thread | None = None
    _stopping: bool = False

    # --- what tests say ---

    def address(self, name: str) -> str:
        """Of the side called `name`; HERE is the test itself."""
        return f"10.{self.subnet}.0.{254 if name == HERE else 1 + self.names.index(name)}"

    def inside(self, name: str) -> tuple[str, ...]:
        """The words before a command that shall run there."""
        return ("ip", "netns", "exec", self._namespace(name))

    def cut_off(self, *names: str) -> None:
        """These reach each other and nobody else, but for the test; nobody else reaches them."""
        others = [name for name in self.names if name not in names]
        pairs = [(one, other) for one in names for other in others]
        self.cuts = self.cuts | {*pairs, *((other, one) for one, other in pairs)}

    def cut_one_way(self, source: str, target: str) -> None:
        self.cuts = self.cuts | {(source, target)}

    def cut_between(self, one: str, other: str) -> None:
        self.cuts = self.cuts | {(one, other), (other, one)}

    def heal(self) -> None:
        self.cuts, self.weather, self.default = frozenset(), {}, CLEAR

    # --- life ---

    def __enter__(self) -> Switch:
        try:
            for name in self.names:
                self._open_namespace(name)
            self._devices[HERE] = _open_device(f"p2psched{self.subnet}")
            self._address_device(HERE, f"p2psched{self.subnet}")
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        if self._thread is not None:
            self._thread.join()
        self._remove()

    def _namespace(self, name: str) -> str:
        return f"p2psched-{os.getpid()}-{name}"

    def _open_namespace(self, name: str) -> None:
        namespace = self._namespace(name)
        _ip("netns", "add", namespace)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                self._devices[name] = _open_device("p0")
            finally:
                _enter(home)
        finally:
            os.close(there)
            os.close(home)
        _ip("-n", namespace, "link", "set", "lo", "up")
        self._address_device(name, "p0", "-n", namespace)

    def _address_device(self, name: str, device: str, *where: str) -> None:
        address = self.address(name)
        _ip(*where, "addr", "add", f"{address}/24", "dev", device)
        _ip(*where, "link", "set", device, "mtu", str(_MTU), "txqueuelen", "5000", "up")
        self._sides[bytes(map(int, address.split(".")))] = name

    def _remove(self) -> None:
        for descriptor in self._devices.values():
            os.close(descriptor)  # and with it the device
        self._devices.clear()
        for name in self.names:
            subprocess.run(
                ["ip", "netns", "del", self._namespace(name)], check=False, capture_output=True
            )

    # --- the switch ---

    def _run(self) -> None:
        rng = random.Random(self.seed)
        late: list[tuple[float, int, str, bytes]] = []  # when, tie, to, packet
        ties = itertools.count()
        with selectors.DefaultSelector() as selector:
            for name, descriptor in self._devices.items():
                selector.register(descriptor, selectors.EVENT_READ, name)
            while not self._stopping:
                wait_s = 0.05 if not late else max(0.0, min(0.05, late[0][0] - time.monotonic()))
                for key, _ in selector.select(wait_s):
                    for packet in _packets(key.fd):
                        for at_s, target in self._fate(key.data, packet, rng):
                            heapq.heappush(late, (at_s, next(ties), target, packet))
                now_s = time.monotonic()
                while late and late[0][0] <= now_s:
                    _, _, target, packet = heapq.heappop(late)
                    self._deliver(target, packet)

    def _fate(self, source: str, packet: bytes, rng: random.Random) -> list[tuple[float, str]]:
        """When it arrives, and where: not at all, once, or twice."""
        target = self._sides.get(packet[16:20]) if packet[0] >> 4 == 4 else None
        if target is None:
            return []
        if (source, target) in self.cuts:
            self.counts.cut += 1
            return []
        weather = self.weather.get((source, target), self.default)
        if HERE in {source, target}:  # the test sees all
            weather = CLEAR
        if rng.random() < weather.loss:
            self.counts.lost += 1
            return []
        copies = 1 + (rng.random() < weather.doubled)
        self.counts.doubled += copies - 1
        arrivals = []
        for _ in range(copies):
            delay_s = max(0.0, weather.delay_s + weather.jitter_s * rng.uniform(-1, 1))
            if rng.random() < weather.hurried:
                delay_s = 0.0
            arrivals.append((time.monotonic() + delay_s, target))
        return arrivals

    def _deliver(self, target: str, packet: bytes) -> None:
        try:
            os.write(self._devices[target], packet)
            self.counts.passed += 1
        except OSError:
            self.counts.lost += 1  # its queue is full


def _packets(descriptor: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < _PACKETS_A_TURN:
        try:
            found.append(os.read(descriptor, 65536))
        except OSError:
            break
    return found


def _open_device(name: str) -> int:
    """In the namespace of this thread."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
