"""Runs a program as a filter over a batch of inputs; it travels with the job: see `client.batches`.

Loaded by workers as a module of its own, so standard library only and nothing of p2psched.
Each complete line that came out is told as an input that is done.

What counts is what a process printed that ended with exit code 0 and one line for each input. A
batch without that is cut into smaller ones, each run in a new process, down to single inputs; so an
input fails only if a process that got nothing else failed. Where to cut is told by the complete
lines that came out before a process died, until that proves wrong (a program that buffers its
output dies with lines of inputs that it has done): from then on batches are halved.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

OUTPUT_BYTES_MAX = 64 * 1024 * 1024  # of one process; a batch that prints more is cut
ERROR_BYTES_MAX = 64 * 1024  # of what one process says on stderr, passed on from its end
MESSAGE_LEN_MAX = 500
LOOK_MS = 500  # at what came out so far
READ_BYTES = 1024 * 1024

Say = Callable[[int, int], object]  # inputs that are done, of how many

Outcome = dict[str, object]
Ran = tuple[list[bytes], str, bool]  # lines, what is wrong, whether lines tell where


def __getattr__(name: str) -> Callable[..., list[Outcome]]:
    """`run_1000_by_200` is `run`: the job's path tells how many inputs there are."""
    if name.startswith("run_"):
        return run
    raise AttributeError(name)


def run(
    inputs: Sequence[bytes],
    *,
    argv: Sequence[str],
    env: dict[str, str],
    cwd: str | None,
    files: Sequence[tuple[Any, int]],
    as_arguments: bool,
    single: bool,
    retries: int,
) -> list[Outcome]:
    """One outcome for each input, in order. `single`: every batch is one input, which may print
    any number of lines. Raises OSError if the program can't be started at all."""
    base = tempfile.mkdtemp(dir=os.getcwd())  # noqa: PTH109 - the task's own folder
    try:
        program = _Program(base, argv, env, cwd, as_arguments=as_arguments, single=single)
        if not single:
            program.say = _teller()
            program.on_done(0, len(inputs))
        for file, mode in files:
            target = f"{program.folder}/{file.name}"
            shutil.copyfile(file.path, target)
            os.chmod(target, mode)  # noqa: PTH101
        return solve(program.run, inputs, retries, program.on_done)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def solve(
    process: Callable[[Sequence[bytes]], Ran],
    inputs: Sequence[bytes],
    retries: int,
    on_done: Callable[[int, int], object] | None = None,
) -> list[Outcome]:
    """See the module. `on_done` hears how many are, of how many, after each process."""
    outcomes: list[Outcome] = [{} for _ in inputs]
    left = [(0, len(inputs), retries)]
    suspect, trusted = -1, True
    while left:
        start, stop, tries = left.pop()
        lines, wrong, tells = process(inputs[start:stop])
        if not wrong:
            outcomes[start:stop] = map(_good, lines)
            # What died before it, by its lines, was another one.
            trusted = trusted and (start != suspect or tries < retries)
        elif stop - start == 1:
            outcomes[start] = _bad(wrong)
            if tries:
                left.append((start, stop, tries - 1))
        else:
            cut = start + len(lines)
            if trusted and tells and cut < stop:
                suspect = cut
                pieces = [(cut + 1, stop), (start, cut), (cut, cut + 1)]
            else:
                middle = (start + stop) // 2
                pieces = [(middle, stop), (start, middle)]
            left += [(low, high, retries) for low, high in pieces if low < high]
        if on_done is not None:
            open_ = sum(high - low for low, high, _ in left)
            on_done(len(inputs) - open_, len(inputs))
    return outcomes


def _silent(done: int, total: int) -> None:
    pass


def _teller() -> Say:
    """What the worker that runs this has loaded for its tasks."""
    found: Say = getattr(sys.modules.get("p2psched.run.host.words"), "progress", _silent)
    return found


class _Program:
    def __init__(
        self,
        base: str,
        argv: Sequence[str],
        env: dict[str, str],
        cwd: str | None,
        *,
        as_arguments: bool,
        single: bool,
    ) -> None:
        self.folder = f"{base}/folder"
        os.mkdir(self.folder)  # noqa: PTH102
        self._inputs = f"{base}/inputs"
        self._argv = list(argv)
        self._env = {**os.environ, **env, "P2P_INPUTS": self._inputs}
        self._cwd = cwd or self.folder
        self._as_arguments = as_arguments
        self._single = single
        self.say: Say = _silent
        self._done, self._total = 0, 0

    def on_done(self, done: int, total: int) -> None:
        """So many need no process any more."""
        self._done, self._total = done, total
        self.say(done, total)

    def run(self, inputs: Sequence[bytes]) -> Ran:
        """One process. Its streams are files: no pipe that fills up, nothing to wait for but it."""
        with open(self._inputs, "wb") as file:  # noqa: PTH123
            file.writelines(one + b"\n" for one in inputs)
        argv: list[str | bytes] = [*self._argv, *(inputs if self._as_arguments else ())]
        source = os.devnull if self._as_arguments else self._inputs
        with (
            open(source, "rb") as stdin,  # noqa: PTH123
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            try:
                with subprocess.Popen(
                    argv, stdin=stdin, stdout=stdout, stderr=stderr, env=self._env, cwd=self._cwd
                ) as process:
                    try:
                        self._watch(process, stdout.fileno(), len(inputs))
                        code = process.wait()
                    except BaseException:
                        process.kill()
                        raise
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                return [], "the arguments are longer than this system takes", False
            said = _tail(stderr.fileno())
            if code == 0 or len(inputs) == 1:
                sys.stderr.write(said)
            size = os.fstat(stdout.fileno()).st_size
            if size > OUTPUT_BYTES_MAX:
                return [], f"it printed more than {OUTPUT_BYTES_MAX >> 20} MiB", False
            printed = os.pread(stdout.fileno(), size, 0)
        return self._judge(code, printed, said, len(inputs))

    def _watch(self, process: subprocess.Popen[bytes], output: int, count: int) -> None:
        """Until it ends, tell of each complete line."""
        lines = read = 0
        ended = select.poll()
        descriptor = os.pidfd_open(process.pid)
        try:
            ended.register(descriptor, select.POLLIN)
            while not ended.poll(LOOK_MS):
                before = lines
                while found := os.pread(output, READ_BYTES, read):
                    read += len(found)
                    lines += found.count(b"\n")
                if lines != before:
                    self.say(self._done + min(lines, count), self._total)
        finally:
            os.close(descriptor)

    def _judge(self, code: int, printed: bytes, said: str, count: int) -> Ran:
        if code:
            lines = printed.split(b"\n")[:-1]  # what came after the last one is not complete
            return lines, _why(code, said), True
        if self._single:
            return [printed.removesuffix(b"\n")], "", False
        lines = printed.removesuffix(b"\n").split(b"\n") if printed else []
        if len(lines) == count:
            return lines, "", False
        return [], f"{len(lines)} lines came out for {count} inputs", False


def _why(code: int, said: str) -> str:
    text = f"exit code {code}" if code > 0 else f"signal {-code}"
    last = said.strip().rpartition("\n")[2]
    return f"{text}: {last[:MESSAGE_LEN_MAX]}" if last else text


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    begin = max(0, size - ERROR_BYTES_MAX)
    return os.pread(descriptor, ERROR_BYTES_MAX, begin).decode(errors="backslashreplace")


def _good(line: bytes) -> Outcome:
    return {"ok": True, "out": _text(line), "error": ""}


def _bad(wrong: str) -> Outcome:
    return {"ok": False, "out": "", "error": wrong}


def _text(line: bytes) -> str | bytes:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line
