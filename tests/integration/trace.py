"""What a process did, in order, as strace saw it from outside: log writes, syncs, messages sent.

Nothing here believes the process: records and frames are decoded from the bytes that it handed to
the kernel.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2psched.model.messages import Message
from p2psched.net.frames import FrameDecoder
from p2psched.store.segments import RecordType

_CALLS: Final = "write,writev,pwrite64,sendto,sendmsg,fdatasync,fsync"
_LINE: Final = re.compile(r"(\d+) +(\w+)\((\d+)<([^>]*)>(.*)", re.DOTALL)
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. (?:fdatasync|fsync) resumed>")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RECORD: Final = struct.Struct("<4sIIIIIBB6xQQ")  # as `store.segments` lays it out
_MAGIC: Final = b"\xf2p2r"


@dataclass(frozen=True, slots=True)
class Wrote:
    """A record handed to the log; not on disk yet."""

    type: int
    index: int
    term: int


@dataclass(frozen=True, slots=True)
class SyncBegan:
    thread: str


@dataclass(frozen=True, slots=True)
class SyncDone:
    thread: str


@dataclass(frozen=True, slots=True)
class Sent:
    message: Message


Step = Wrote | SyncBegan | SyncDone | Sent


@contextmanager
def traced(pid: int, into: Path) -> Iterator[None]:
    """Trace a running process. Raises PermissionError if this machine does not let us."""
    argv = ["strace", "-f", "-yy", "-xx", "-s", "1200000", "-e", f"trace={_CALLS}"]
    with subprocess.Popen(
        [*argv, "-e", "signal=none", "-o", str(into), "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    ) as strace:
        assert strace.stderr is not None
        try:
            if "attached" not in (first := strace.stderr.readline()):
                raise PermissionError(first)
            yield
        finally:
            strace.terminate()
            strace.stderr.read()


def steps(trace: Path) -> Iterator[Step]:
    """In the order in which the kernel saw them."""
    streams: dict[str, FrameDecoder] = {}
    syncing: set[str] = set()
    for line in trace.read_text(errors="replace").splitlines():
        if (resumed := _RESUMED.match(line)) is not None:
            if resumed[1] in syncing:
                syncing.discard(resumed[1])
                yield SyncDone(resumed[1])
            continue
        if (call := _LINE.match(line)) is None:
            continue
        thread, name, _, target, rest = call.groups()
        target = _unescape(target)
        if target.endswith(".seg") and name in {"fdatasync", "fsync"}:
            yield SyncBegan(thread)
            if "<unfinished" in rest:
                syncing.add(thread)
            else:
                yield SyncDone(thread)
        elif target.endswith(".seg"):
            yield from _records(_bytes_in(rest))
        elif target.startswith("TCP:"):
            decoder = streams.setdefault(target, FrameDecoder(opening=False))
            for message in decoder.feed(_bytes_in(rest)):
                yield Sent(message)


@dataclass(slots=True)
class Durable:
    """What the disk has promised so far, by the steps seen."""

    index: int  # of the last entry
    term: int
    _unsynced: list[Wrote] = field(default_factory=list)
    _taken: dict[str, int] = field(default_factory=dict)  # thread -> records that its sync covers
    syncs: int = 0

    def see(self, step: Step) -> None:
        match step:
            case Wrote():
                self._unsynced.append(step)
            case SyncBegan(thread=thread):
                self._taken[thread] = len(self._unsynced)
            case SyncDone(thread=thread):
                count = self._taken.pop(thread)
                for record in self._unsynced[:count]:
                    self._take(record)
                del self._unsynced[:count]
                self.syncs += 1
            case Sent():
                pass

    def _take(self, record: Wrote) -> None:
        match record.type:
            case RecordType.ENTRY:
                self.index = record.index
            case RecordType.TRUNCATE:
                self.index = record.index - 1
            case RecordType.HARD_STATE:
                self.term = record.term


def _records(data: bytes) -> Iterator[Wrote]:
    position = data.find(_MAGIC)  # a new segment's header comes first
    while 0 <= position <= len(data) - _RECORD.size:
        magic, _, size, _, _, _, kind, _, index, term = _RECORD.unpack_from(data, position)
        assert magic == _MAGIC, "records follow each other without gaps"
        yield Wrote(kind, index, term)
        position += -(-(_RECORD.size + size) // 8) * 8


def _bytes_in(text: str) -> bytes:
    """All strings of a call's arguments (the pieces of a writev), one after another."""
    return b"".join(bytes.fromhex(found.replace("\\x", "")) for found in _TEXT.findall(text))


def _unescape(text: str) -> str:
    plain = bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()
    return plain.decode(errors="replace")
