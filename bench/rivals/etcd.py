"""etcd beside us: real members on loopback, with its defaults (every write is synced), and a
client of its key-value service that costs what ours costs (see `bench.rivals.grpc`)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.cluster import family_cpu_s, free_port
from bench.registry import Unsupported
from bench.rivals.grpc import Channel, connect

PROGRAM: Final = "etcd"
READY_TIMEOUT_S: Final = 30.0
HEARTBEAT_MS: Final = 100  # what etcd has by default, said because the figures hang on it
ELECTION_MS: Final = 1000
_PUT: Final = "/etcdserverpb.KV/Put"
_RANGE: Final = "/etcdserverpb.KV/Range"
_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
_LOCK: Final = "/v3lockpb.Lock/Lock"
_UNLOCK: Final = "/v3lockpb.Lock/Unlock"


class Etcd:
    """As many members as are asked for, started at the first use and killed at the end."""

    def __init__(self, members: int) -> None:
        self._count = members
        self._folder: Path | None = None
        self._ports: list[int] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self.version = ""

    async def __aenter__(self) -> Etcd:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)  # at SIGTERM a member waits for others to lead
            process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def start(self) -> None:
        """Until every member is healthy; nothing to do from the second time on. Raises Unsupported
        with the reason if there is no etcd here, or it does not come up."""
        if self._processes:
            return
        program = shutil.which(PROGRAM)
        if program is None:
            raise Unsupported("no program `etcd` here: apt-get install etcd-server")
        await asyncio.to_thread(self._start, program)
        await self._wait_healthy()

    def _start(self, program: str) -> None:
        said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
        self.version = said.stdout.partition("\n")[0].rpartition(" ")[2]
        self._folder = Path(tempfile.mkdtemp(prefix="p2psched-bench-etcd-"))
        self._ports = [free_port() for _ in range(self._count)]
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(self._count)]
        for number in range(self._count):
            command = [program, *_options(number, self._folder, self._ports[number], peers)]
            with (self._folder / f"n{number}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=_environment())
                )

    async def _wait_healthy(self) -> None:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await asyncio.to_thread(self._is_healthy):  # noqa: ASYNC110 (others' work)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            assert self._folder is not None
            said = " | ".join(
                log.read_text()[-300:].strip() for log in sorted(self._folder.glob("*.log"))
            )
            raise Unsupported(f"no healthy etcd within {READY_TIMEOUT_S:g} s: {said}") from None

    def _is_healthy(self) -> bool:
        try:
            found = [json.loads(_get(port, "health"))["health"] for port in self._ports]
        except OSError:  # also what urllib raises
            return False
        return all(health == "true" for health in found)

    # --- what is asked of it ----------------------------------------------------------------------

    async def client(self, *, leader: bool) -> EtcdClient:
        """A connection to the leader, or to the first follower."""
        values = await self._metrics()
        leads = [found["etcd_server_is_leader"] == 1 for found in values]
        return EtcdClient(await connect("127.0.0.1", self._ports[leads.index(leader)]))

    async def syncs(self) -> float:
        """Of the logs of all members, since they started."""
        values = await self._metrics()
        return sum(found["etcd_disk_wal_fsync_duration_seconds_count"] for found in values)

    async def _metrics(self) -> list[Mapping[str, float]]:
        texts = [await asyncio.to_thread(_get, port, "metrics") for port in self._ports]
        return [metrics(text.decode()) for text in texts]

    async def counts(self, prefix: str) -> list[int]:
        """How many keys start with the prefix, on each member by itself."""
        asked = {
            "key": _base64(prefix.encode()),
            "range_end": _base64(_after(prefix.encode())),
            "serializable": True,
            "count_only": True,
        }
        body = json.dumps(asked).encode()
        answers = [await asyncio.to_thread(_get, port, "v3/kv/range", body) for port in self._ports]
        return [int(json.loads(answer).get("count", 0)) for answer in answers]

    def cpu_s(self) -> float:
        return sum(family_cpu_s(process.pid) for process in self._processes)


class EtcdClient:
    """Puts, linearizable reads and locks over one connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def put(self, key: bytes, value: bytes) -> None:
        """Returns once it is on the disks of a majority and applied."""
        await self._channel.call(_PUT, _field(1, key) + _field(2, value))

    async def get(self, key: bytes, value: bytes) -> None:
        """Read a key, linearizably as is the default. Raises LookupError if it has no such value:
        it stands in the answer as it was sent, so nothing of that is taken apart."""
        if value not in await self._channel.call(_RANGE, _field(1, key)):
            raise LookupError(key)

    async def lease(self, ttl_s: int) -> int:
        """A new lease, which nobody keeps alive."""
        return _number(await self._channel.call(_GRANT, _varint_field(1, ttl_s)), 2)

    async def lock(self, name: bytes, lease: int) -> bytes:
        """The key that stands for it, once it is ours: waiters get it in order."""
        answer = await self._channel.call(_LOCK, _field(1, name) + _varint_field(2, lease))
        found = fields(answer)[2]
        assert isinstance(found, bytes)
        return found

    async def unlock(self, key: bytes) -> None:
        await self._channel.call(_UNLOCK, _field(1, key))

    def close(self) -> None:
        self._channel.close()


def _field(number: int, data: bytes) -> bytes:
    """Bytes as a field of protobuf."""
    assert len(data) < 128, "longer lengths take more than one byte"
    return bytes([number << 3 | 2, len(data)]) + data


def _varint_field(number: int, value: int) -> bytes:
    """A number that is not negative as a field of protobuf."""
    found = bytearray([number << 3])
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that starts here, and where what follows it starts."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(message: bytes) -> dict[int, int | bytes]:
    """The fields of a message of protobuf that are numbers or bytes, the last of each."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        head, at = _varint(message, at)
        value, at = _varint(message, at)
        if head & 7 == 2:
            found[head >> 3], at = message[at : at + value], at + value
        elif head & 7 == 0:
            found[head >> 3] = value
        else:
            raise ValueError(f"a field of kind {head & 7} is not read here")
    return found


def _number(message: bytes, field: int) -> int:
    found = fields(message)[field]
    assert isinstance(found, int)
    return found


def metrics(text: str) -> dict[str, float]:
    """The values without labels on a page for Prometheus."""
    rows = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in rows if "{" not in name}


def _options(number: int, folder: Path, port: int, peers: Sequence[str]) -> list[str]:
    client = f"http://127.0.0.1:{port}"
    options = {
        "name": f"n{number}",
        "data-dir": str(folder / f"n{number}"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peers[number],
        "initial-advertise-peer-urls": peers[number],
        "initial-cluster": ",".join(f"n{n}={peer}" for n, peer in enumerate(peers)),
        "initial-cluster-state": "new",
        "initial-cluster-token": folder.name,
        "heartbeat-interval": str(HEARTBEAT_MS),
        "election-timeout": str(ELECTION_MS),
        "log-level": "warn",
    }
    return [f"--{name}={value}" for name, value in options.items()]


def _environment() -> dict[str, str]:
    """Without what would set an option."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}


def _get(port: int, path: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", body, timeout=10) as answer:
        found: bytes = answer.read()
        return found


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _after(prefix: bytes) -> bytes:
    """The first key behind all that start with the prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
