"""The output of one task while it runs, each byte once: its owner's disk first, then its result.

A task may start again, on another peer or after a failure. Then the rest of what it has printed is
shown, as far as anybody has it, the next attempt is announced, and shown from its beginning.
Invariant: what is printed of an attempt is a prefix of what it wrote, and once it has ended with a
result the whole, but for a middle that was dropped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from p2psched.cli.output import note, write_bytes
from p2psched.cli.tasks import TaskEnd, open_item
from p2psched.client.attempts import ended_attempt
from p2psched.client.client import Client, Job
from p2psched.model.commands import Event, Retried, Revoked
from p2psched.model.errors import Unavailable
from p2psched.model.ids import short
from p2psched.model.job import Cause
from p2psched.model.messages import FetchResults, OutputPiece, ResultPage, TailOutput

POLL_S: Final = 0.15
TAIL_TIMEOUT_S: Final = 2.0
STREAMS: Final = ("stdout", "stderr")
Targets = Mapping[str, TextIO]


@dataclass(slots=True)
class Sink:
    """Where one stream of a task goes, and how much of it is there."""

    stream: str  # stdout or stderr
    target: TextIO
    offset: int = 0


class LiveTask:
    """Follows one task. Make one, `follow` it once."""

    def __init__(
        self, client: Client, job: Job, index: int, *, targets: Targets | None = None
    ) -> None:
        """`targets`: only these streams; stdout and stderr each to ours if none are given."""
        self._client = client
        self._job = job
        self._index = index
        self._seen_index = 0  # of the last event of the job's history that we know
        where = {"stdout": sys.stdout, "stderr": sys.stderr} if targets is None else targets
        self._sinks = [Sink(stream, target) for stream, target in where.items()]

    async def follow(self, *, alone: bool) -> TaskEnd | None:
        """Show the task until it ends; None if it was cancelled. `alone`: it is the job's only
        one, so that a result of the job is its end."""
        await self._restarts(quiet=True)
        while True:
            moved = await self._show_pieces()
            if not moved:  # a new attempt may have printed no more than the one before
                moved = await self._restarts(quiet=False)
            end, over = await self.finish()
            if over:
                return end
            if alone:
                wait_ms = 0 if moved else round(POLL_S * 1000)
                call = FetchResults(self._job.id, 0, wait_ms)
                await self._client.session.call(call, ResultPage)
            elif not moved:
                await asyncio.sleep(POLL_S)

    async def show_now(self) -> TaskEnd | None:
        """What there is now, of a task that may still run."""
        await self._restarts(quiet=True)
        while await self._show_pieces():
            pass
        return (await self.finish())[0]

    async def finish(self) -> tuple[TaskEnd | None, bool]:
        """If the task has ended: show the rest. Returns its end, and whether there is more."""
        answer = await self._job.item(self._index)
        if answer.item is None:
            return None, answer.state not in {"waiting", "owned"}
        # A whole attempt may lie between the last piece and this result.
        await self._restarts(quiet=False)
        end = open_item(self._job.id, self._index, answer.cause, answer.item)
        kept = {sink.stream: end.stream(sink.stream) for sink in self._sinks}
        missing = ""
        if not all(kept[sink.stream].has(sink.offset) for sink in self._sinks):
            log = await self._job.task(self._index).logs()  # its peer may have all of it
            kept = {"stdout": log.out, "stderr": log.err}
            missing = log.note
        for sink in self._sinks:
            write_bytes(sink.target, kept[sink.stream].rest(sink.offset))
            sink.offset = end.total(sink.stream)
        if missing:
            note(f"[{missing}]")
        return end, True

    async def _show_pieces(self) -> bool:
        """True if there was something new."""
        pieces = [(sink, await self._piece(sink)) for sink in self._sinks]
        if not any(piece.data for _, piece in pieces):
            return False
        # Asked after the pieces: if one of them is of a new attempt, history knows by now.
        if not await self._restarts(quiet=False):
            for sink, piece in pieces:
                dropped = piece.offset - len(piece.data) - sink.offset
                if dropped > 0:
                    write_bytes(sink.target, b"[... %d bytes dropped ...]\n" % dropped)
                write_bytes(sink.target, piece.data)
                sink.offset = piece.offset
        return True

    async def _piece(self, sink: Sink) -> OutputPiece:
        body = TailOutput(self._job.id, self._index, sink.stream == "stderr", sink.offset)
        try:
            # Not by the session: it would ask again and again for what a lost peer had.
            async with asyncio.timeout(TAIL_TIMEOUT_S):
                answer = await (await self._client.session.connection()).call(body)
        except (Unavailable, TimeoutError):
            return OutputPiece(False, sink.offset, b"")
        assert isinstance(answer, OutputPiece)
        return answer

    async def _restarts(self, *, quiet: bool) -> bool:
        """Look for attempts of the task that ended since the last time, and were not the last; if
        there are any, show what is left of each, and begin anew."""
        restarted = False
        more = True
        while more:
            history = await self._job.history(after=self._seen_index)
            for stamped in history.events:
                self._seen_index = stamped.index
                cause = self._cause_of(stamped.event)
                if cause is None:
                    continue
                restarted = True
                if not quiet:
                    await self._show_rest(stamped.event)
                    note(f"[task {short(self._job.id)}/{self._index} starts again: {cause}]")
                for sink in self._sinks:
                    sink.offset = 0
            more = history.more
        return restarted

    def _cause_of(self, event: Event) -> Cause | None:
        """Why an attempt of our task ended that was not the last."""
        match event:
            case Retried(segment=segment) if self._index in segment.tasks:
                return segment.cause
            case Revoked(tasks=tasks, cause=cause) if self._index in tasks:
                return None if cause in {Cause.CANCELLED, Cause.OVERTAKEN} else cause
            case _:
                return None

    async def _show_rest(self, event: Event) -> None:
        if not isinstance(event, Retried):
            return
        log = await self._job.task(self._index).log_of(ended_attempt(event))
        for sink in self._sinks:
            stream = log.out if sink.stream == "stdout" else log.err
            write_bytes(sink.target, stream.rest(sink.offset))
