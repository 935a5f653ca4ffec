"""`p2psched job logs`: what tasks print, while they run and after, attempt by attempt."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, TextIO

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import Names, attempt_fields, attempt_line, log_fields, reason
from p2psched.cli.follow import prefixed
from p2psched.cli.interrupt import detachable
from p2psched.cli.jobs import JobArgument
from p2psched.cli.live import STREAMS, LiveTask, Targets
from p2psched.cli.options import Target, talks_to_peers, with_options
from p2psched.cli.output import Output, note, print_json, write_bytes, write_line
from p2psched.cli.results import collect, say_if_running
from p2psched.cli.tasks import TaskEnd, open_segment, split_task
from p2psched.client.client import Client, Job
from p2psched.client.logs import Log, last_lines
from p2psched.model.errors import NotFound, UsageError
from p2psched.model.ids import short
from p2psched.model.messages import JobView

ALL: Final = "all"
LOGS_EXAMPLES: Final = """\b
Examples:
  p2psched job logs last
  p2psched job logs 1a2b 17 --stderr -n 20
  p2psched job logs last/17 --attempt 1
  p2psched job logs last 0 --attempt all
  p2psched job logs last -f
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams, and how many lines of each."""

    only: str | None = None  # stdout or stderr, then on our stdout
    lines: int | None = None

    def cut(self, data: bytes) -> bytes:
        return data if self.lines is None else last_lines(data, self.lines)

    def target(self, stream: str) -> TextIO:
        return sys.stderr if stream == "stderr" and self.only is None else sys.stdout

    @contextlib.contextmanager
    def targets(self) -> Iterator[Targets]:
        """Where to write what comes in pieces; if only the last lines are wanted they are written
        at the end."""
        if self.lines is None:
            yield {name: self.target(name) for name in self.streams}
            return
        held = {name: io.TextIOWrapper(io.BytesIO()) for name in self.streams}
        yield dict(held)
        for name, text in held.items():
            text.seek(0)
            write_bytes(self.target(name), self.cut(text.buffer.read()))

    @property
    def streams(self) -> tuple[str, ...]:
        return STREAMS if self.only is None else (self.only,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of a task's output is shown."""

    stdout: Annotated[bool, typer.Option("--stdout", help="Only what went to stdout.")] = False
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Only what went to stderr, on our stdout.")
    ] = False
    attempt: Annotated[
        str | None,
        typer.Option(
            "--attempt", metavar="N", help="That attempt of one task, from 1 on, or 'all'."
        ),
    ] = None
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", min=0, help="The last so many lines of each.")
    ] = None
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job, or the task, has ended.")
    ] = False

    def check(self, output: Output) -> None:
        """Raises UsageError."""
        if self.stdout and self.stderr:
            raise UsageError("--stdout and --stderr exclude each other: leave both away for both")
        if self.follow and output is not Output.TABLE:
            raise UsageError("--follow shows bytes as they come: leave --output away")
        if self.follow and (self.attempt is not None or self.lines is not None):
            raise UsageError("--follow shows each attempt as it comes: leave --attempt and -n away")

    @property
    def wanted(self) -> Wanted:
        return Wanted("stdout" if self.stdout else "stderr" if self.stderr else None, self.lines)


@talks_to_peers
@with_options(Choice, "choice")
def logs(
    target: Target,
    job: JobArgument,
    index: Annotated[
        int | None, typer.Argument(metavar="INDEX", min=0, help="One task; as ID/INDEX.")
    ] = None,
    *,
    choice: Choice,
) -> None:
    """Show what tasks print. ID/INDEX is one task, also while it runs.

    Standard output comes on stdout and standard error on stderr; each line of an array begins with
    the index of its task. Without --attempt it is the last attempt of a task.
    """
    text, asked = split_task(job)
    if index is not None and asked is not None:
        raise UsageError(f"name the task once: {text}/{asked}, or {text} {index}")
    choice.check(target.output)
    number = None if choice.attempt is None else _number(choice.attempt)

    async def work(client: Client) -> None:
        found = await client.job(text)
        view = await found.show()
        shown = _Shown(client, found, view, choice.wanted, target.output)
        one = asked if index is None else index
        if choice.attempt is not None:
            await shown.attempts(one, number)
        elif target.output is not Output.TABLE:
            await shown.ended(one)
        elif choice.follow:
            await detachable(found, shown.follow(one))
        else:
            await shown.now(one)

    talk(target, work)


def _number(attempt: str | None) -> int | None:
    """Which attempt; None for all."""
    if attempt is None or attempt == ALL:
        return None
    if not (attempt.isascii() and attempt.isdecimal() and 0 < int(attempt) < 2**31):
        raise UsageError(f"--attempt is a number from 1 on, or 'all', not {attempt!r}")
    return int(attempt)


class _Shown:
    """A job's output, on its way to a terminal or a program."""

    def __init__(
        self, client: Client, job: Job, view: JobView, wanted: Wanted, output: Output
    ) -> None:
        self._client = client
        self._job = job
        self._view = view
        self._wanted = wanted
        self._output = output

    def _one(self, index: int | None) -> int | None:
        """The task that was named, or the only one."""
        return self._view.task_set.first if index is None and self._view.tasks == 1 else index

    # --- attempts ---

    async def attempts(self, index: int | None, number: int | None) -> None:
        """One attempt of a task, or all of them, each with a line on stderr that says which."""
        index = self._one(index)
        if index is None:
            raise UsageError(f"attempts of which task? add its INDEX: {self._view.task_set}")
        if index not in self._view.task_set:
            raise NotFound(f"job {short(self._job.id)} has no task {index}: {self._view.task_set}")
        task = self._job.task(index)
        found = await task.attempts()
        if number is not None or not found:
            found = [task.chosen(found, number)]
        names: Names = {peer.info.peer: peer.info.name for peer in await self._client.peers()}
        fields = []
        for attempt in found:
            if self._output is Output.QUIET:
                write_line(str(attempt.number))
                continue
            log = await task.log_of(attempt)
            if self._output is Output.JSON:
                fields.append(attempt_fields(log, names, self._wanted.cut))
            else:
                await self._write_attempt(log, names)
        if self._output is Output.JSON:
            print_json(job=self._job.id, index=index, attempts=fields)

    async def _write_attempt(self, log: Log, names: Names) -> None:
        note(f"[{attempt_line(log.attempt, names)}]")
        if log.attempt.cause is None:
            with self._wanted.targets() as targets:
                await LiveTask(self._client, self._job, log.index, targets=targets).show_now()
            return
        for name in self._wanted.streams:
            stream = log.out if name == "stdout" else log.err
            write_bytes(self._wanted.target(name), self._wanted.cut(stream.rest()))
        if log.note:
            note(f"[{log.note}]")
        text = log.header.get("traceback") or log.header.get("message")
        if text and self._wanted.only is None:
            note(str(text).rstrip())

    # --- the last attempt ---

    async def ended(self, index: int | None) -> None:
        """For programs."""
        tasks = await collect(self._client, self._view, only=index)
        if self._output is Output.QUIET:
            for task in tasks:
                write_line(task.name)
        else:
            print_json(job=self._view.job, logs=[log_fields(task) for task in tasks])

    async def follow(self, index: int | None) -> None:
        one = self._one(index)
        if one is not None:
            with self._wanted.targets() as targets:
                live = LiveTask(self._client, self._job, one, targets=targets)
                end = await live.follow(alone=self._view.tasks == 1)
            _say_traceback(end)
            return
        async for page in self._job.pages():
            for segment in page.segments:
                for task in open_segment(self._job.id, segment):
                    self._write(task)

    async def now(self, index: int | None) -> None:
        """What there is."""
        one = self._one(index)
        if one is None:
            for task in await collect(self._client, self._view, only=None):
                self._write(task)
            say_if_running(self._view)
            return
        attempts = await self._job.task(one).attempts()
        if attempts[1:]:
            note(f"[attempt {attempts[-1].number}; --attempt all shows all of them]")
        with self._wanted.targets() as targets:
            end = await LiveTask(self._client, self._job, one, targets=targets).show_now()
        _say_traceback(end)

    def _write(self, task: TaskEnd) -> None:
        for name in self._wanted.streams:
            data = self._wanted.cut(task.rest(name))
            if data:
                write_bytes(self._wanted.target(name), prefixed(data, task.index))
        if task.header.get("traceback"):
            note(f"[{task.index}] {reason(task.cause, task.header)}")


def _say_traceback(task: TaskEnd | None) -> None:
    """A function that raised has said nothing itself; a program that never began neither."""
    if task is None or task.ok:
        return
    text = task.header.get("traceback") or task.header.get("message")
    if text:
        sys.stderr.write(f"{str(text).rstrip()}\n")
