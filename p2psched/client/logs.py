"""What attempts of a task have printed, from any peer: `job.task(3).logs(attempt=1)`.

The result of an attempt brings the first and the last of what it printed, and all peers that hold
the ledger keep that: see docs/logs.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from p2psched.client.attempts import Attempt, attempts_of
from p2psched.client.session import Asker, Session
from p2psched.client.story import Step, read_history
from p2psched.model import items
from p2psched.model.errors import NotFound, P2PSchedError, ProtocolError
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.log_messages import FetchAttempt, KeptAttempt, OutputRead, ReadOutput
from p2psched.model.messages import FetchItem, ItemAnswer, ListPeers
from p2psched.model.peer_messages import PeerList

DISK_S: Final = 3.0  # for all that the peer that ran an attempt has of it: 2 MiB at most
ON_DISK, NOT_ON_DISK, UNREACHED = "here", "gone", "unreached"


@dataclass(frozen=True, slots=True)
class Stream:
    """What is left of a stream of `total` bytes: pieces of it, each with its place."""

    total: int = 0
    pieces: tuple[tuple[int, bytes], ...] = ()

    def rest(self, offset: int = 0) -> bytes:
        """From byte `offset` of what was written on; each gap is said in a line of its own."""
        found = b""
        for start, data in self.pieces:
            if start + len(data) <= offset:
                continue
            if start > offset:
                found = _with_gap(found, start - offset)
                offset = start
            found += data[offset - start :]
            offset = start + len(data)
        return found if offset >= self.total else _with_gap(found, self.total - offset)

    @property
    def kept(self) -> int:
        """Bytes that are here."""
        count = upto = 0
        for start, data in self.pieces:
            end = start + len(data)
            count += max(0, end - max(start, upto))
            upto = max(upto, end)
        return count

    @property
    def is_whole(self) -> bool:
        return self.kept >= self.total

    def has(self, offset: int) -> bool:
        """True if all from there on is here."""
        upto = offset
        for start, data in self.pieces:
            if start <= upto:
                upto = max(upto, start + len(data))
        return upto >= self.total

    def __add__(self, other: Stream) -> Stream:
        """What either of two has of the same stream."""
        return Stream(max(self.total, other.total), tuple(sorted(self.pieces + other.pieces)))


def _with_gap(before: bytes, dropped: int) -> bytes:
    newline = b"" if not before or before.endswith(b"\n") else b"\n"
    return before + newline + b"[... %d bytes dropped ...]\n" % dropped


def stream_of(header: items.Header, name: str, kept: bytes) -> Stream:
    """A stream as an item has it: its first and its last bytes, if it was long."""
    total = _number(header, f"{name}_total", len(kept))
    if total <= len(kept):
        return Stream(len(kept), ((0, kept),) if kept else ())
    head = min(_number(header, f"{name}_head", len(kept)), len(kept))
    tail_at = total - (len(kept) - head)
    return Stream(total, ((0, kept[:head]), (tail_at, kept[head:])))


def _number(header: items.Header, field: str, default: int) -> int:
    found = header.get(field, default)
    return found if isinstance(found, int) else default


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What one attempt has printed. `note` says what is missing, and why."""

    job: JobId
    index: int
    attempt: Attempt
    out: Stream
    err: Stream
    header: items.Header
    note: str = ""

    @property
    def stdout(self) -> str:
        return self.out.rest().decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.err.rest().decode(errors="replace")


class TaskOfJob:
    """One task of a job: what it printed, attempt by attempt."""

    def __init__(self, session: Asker, job: JobId, index: int) -> None:
        self._session = session
        self.job = job
        self.index = index

    async def attempts(self) -> list[Attempt]:
        """All that the history of the job still tells of, oldest first."""
        return attempts_of((await read_history(self._session, self.job)).events, self.index)

    async def logs(self, *, attempt: int | None = None) -> Log:
        """What an attempt has printed; without a number, the last one. Raises NotFound."""
        found = await self.attempts()
        return await self.log_of(self.chosen(found, attempt))

    async def history(self) -> list[Step]:
        """What happened to it, and to its job as a whole, oldest first."""
        return (await read_history(self._session, self.job)).steps(self.index)

    def chosen(self, found: list[Attempt], number: int | None) -> Attempt:
        """One of them by its number, or the last. Raises NotFound."""
        name = f"task {short(self.job)}/{self.index}"
        if not found:
            raise NotFound(f"{name} has not been given to a peer yet: it has no attempts")
        for one in found:
            if one.number == (found[-1].number if number is None else number):
                return one
        numbers = f"{found[0].number} to {found[-1].number}" if found[1:] else "1"
        raise NotFound(f"{name} has no attempt {number}: it has {numbers}")

    async def log_of(self, attempt: Attempt) -> Log:
        """What this attempt has printed: as its result tells, and as the peer that ran it has it if
        that is more."""
        item = await self._item(attempt)
        header: items.Header = {}
        stdout = stderr = b""
        if item is not None:
            try:
                header, _, stdout, stderr = items.unpack(item)
            except ValueError as error:
                raise ProtocolError(f"an attempt's item can't be read: {error}") from error
        streams = [stream_of(header, "stdout", stdout), stream_of(header, "stderr", stderr)]
        disk, peer = ON_DISK, ""
        if item is None or not all(stream.is_whole for stream in streams):
            streams, disk = await self._on_disk(attempt, streams)
            peer = await self._name_of(attempt.peer)
        return Log(
            job=self.job,
            index=self.index,
            attempt=attempt,
            out=streams[0],
            err=streams[1],
            header=header,
            note=_note(attempt, peer, streams, disk, has_item=item is not None),
        )

    async def _name_of(self, peer: PeerId) -> str:
        """For people; of one that nobody knows any more its id."""
        found = (await self._session.call(ListPeers(), PeerList)).peers
        names = (view.info.name for view in found if view.info.peer == peer)
        return next(names, short(peer))

    async def _on_disk(self, attempt: Attempt, known: list[Stream]) -> tuple[list[Stream], str]:
        """These streams with what the peer that ran it has, and whether it could be asked."""
        found = list(known)
        state = NOT_ON_DISK
        try:
            async with asyncio.timeout(DISK_S):
                for stderr in (False, True):
                    async for piece in self._pieces(attempt, stderr=stderr):
                        found[stderr] += piece
                        state = ON_DISK
        except (P2PSchedError, TimeoutError):
            state = UNREACHED
        return found, state

    async def _pieces(self, attempt: Attempt, *, stderr: bool) -> AsyncIterator[Stream]:
        """Not by the session: it would ask again and again for what a lost peer had."""
        assert isinstance(self._session, Session), "logs are read by a client of its own"
        connection = await self._session.connection()
        offset = 0
        while True:
            body = ReadOutput(self.job, self.index, attempt.grant, attempt.peer, stderr, offset)
            answer = await connection.call(body)
            assert isinstance(answer, OutputRead)
            if not answer.known:
                return
            piece = ((answer.offset - len(answer.data), answer.data),) if answer.data else ()
            yield Stream(answer.total, piece)
            if not answer.data or answer.offset >= answer.total:
                return
            offset = answer.offset

    async def _item(self, attempt: Attempt) -> bytes | None:
        if attempt.is_final:
            final = await self._session.call(FetchItem(self.job, self.index), ItemAnswer)
            return final.item
        if not attempt.has_result:
            return None
        body = FetchAttempt(self.job, self.index, attempt.grant)
        return (await self._session.call(body, KeptAttempt)).item


def _note(attempt: Attempt, peer: str, streams: list[Stream], disk: str, *, has_item: bool) -> str:
    """What is missing, and why; empty if nothing is. `peer`: the name of whose disk was asked."""
    is_whole = all(stream.is_whole for stream in streams)
    if attempt.cause is None:
        return "it has not ended"
    if has_item and is_whole:
        return ""
    if has_item:
        left = "of its output the first and the last bytes are left, as its result brought them"
    elif attempt.has_result:
        left = "peers have let go of its result, for newer ones"
    else:
        left = f"it ended by {attempt.cause}, and its peer told nothing"
    match disk:
        case "unreached":
            return f"{left}; peer {peer}, which ran it and may have all of it, can't be reached"
        case "gone":
            return f"{left}; peer {peer}, which ran it, has nothing of it on its disk"
        case _ if not is_whole:
            return f"the middle is left out: peer {peer} keeps the first and the last bytes"
        case _:
            return f"{left}; this is from the disk of peer {peer}"


def last_lines(data: bytes, lines: int) -> bytes:
    """The last so many lines."""
    if lines <= 0:
        return b""
    end = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return data
    return data[end + 1 :]
