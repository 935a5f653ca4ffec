"""What attempts of a task have printed, from any peer: `job.task(3).logs(attempt=1)`.

The result of an attempt brings the first and the last of what it printed, and all peers that hold
the ledger keep that: see docs/logs.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2psched.client.attempts import Attempt, attempts_of
from p2psched.client.session import Asker
from p2psched.client.story import Step, read_history
from p2psched.model import items
from p2psched.model.errors import NotFound, ProtocolError
from p2psched.model.ids import JobId, short
from p2psched.model.log_messages import FetchAttempt, KeptAttempt
from p2psched.model.messages import FetchItem, ItemAnswer


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
        return sum(len(data) for _, data in self.pieces)


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
        """What this attempt has printed."""
        item = await self._item(attempt)
        header: items.Header = {}
        stdout = stderr = b""
        if item is not None:
            try:
                header, _, stdout, stderr = items.unpack(item)
            except ValueError as error:
                raise ProtocolError(f"an attempt's item can't be read: {error}") from error
        return Log(
            job=self.job,
            index=self.index,
            attempt=attempt,
            out=stream_of(header, "stdout", stdout),
            err=stream_of(header, "stderr", stderr),
            header=header,
            note=_note(attempt, item),
        )

    async def _item(self, attempt: Attempt) -> bytes | None:
        if attempt.is_final:
            final = await self._session.call(FetchItem(self.job, self.index), ItemAnswer)
            return final.item
        if not attempt.has_result:
            return None
        body = FetchAttempt(self.job, self.index, attempt.grant)
        return (await self._session.call(body, KeptAttempt)).item


def _note(attempt: Attempt, item: bytes | None) -> str:
    """Why there is nothing to show, if there isn't."""
    if item is not None:
        return ""
    if attempt.cause is None:
        return "it has not ended"
    if attempt.has_result:
        return "its output is let go of: peers keep that of the newest attempts only"
    return f"it ended by {attempt.cause}, and its peer told nothing of it"


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
