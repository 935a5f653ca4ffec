"""What one task may use, as its host knows it, and how a process is bound to it.

Limits of the kernel bind one process, and each one that it starts by itself. What bounds a whole
task is a control group, where there is one (`groups`), or whoever looks at it (`watch`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from collections.abc import Mapping
from typing import Final

PR_SET_NO_NEW_PRIVS: Final = 38
DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them; programs don't
MIB: Final = 1024 * 1024
# A task is ended, with the right cause, once it has too much; this is for one that takes more
# before anybody looks. Memory that is asked for and not used counts here, too.
SLACK_BYTES: Final = 256 * MIB


class Bounds:
    """Limits of a task. None: as its peer has it."""

    def __init__(self, words: Mapping[str, object]) -> None:
        self.memory = _number(words, "memory")
        self.files = _number(words, "files")
        self.processes = _number(words, "processes")
        self.cpu_s = _number(words, "cpu_s")
        self.file_size = _number(words, "file_size")
        self.core = _number(words, "core")
        self.own_home = bool(words.get("own_home"))
        self.sandbox = str(words.get("sandbox") or "")
        self.network = bool(words.get("network", True))

    def bind(self) -> None:
        """This process and what it starts, for ever. Limits that it has already stay if they are
        lower. Raises OSError, ValueError."""
        import resource  # noqa: PLC0415 - most hosts never need it, and each would copy it

        if self.memory is not None:
            most = 2 * self.memory + SLACK_BYTES
            _limit(resource.RLIMIT_DATA, most, most)
        if self.files is not None:
            _limit(resource.RLIMIT_NOFILE, self.files, self.files)
        if self.cpu_s is not None:  # a signal that can be caught, then one that can't
            _limit(resource.RLIMIT_CPU, self.cpu_s, self.cpu_s + 1)
        if self.file_size is not None:
            _limit(resource.RLIMIT_FSIZE, self.file_size, self.file_size)
        if self.core is not None:
            _limit(resource.RLIMIT_CORE, self.core, self.core)
        forgo_privileges()

    def bind_worker(self, folder: str) -> None:
        """A process that runs one task after another in this folder."""
        cpu_s, self.cpu_s = self.cpu_s, None
        self.bind()
        self.cpu_s = cpu_s
        if self.own_home:
            os.environ["HOME"] = folder

    def renew_cpu(self) -> None:
        """The next task has all of its processor time before it."""
        import resource  # noqa: PLC0415 - as above

        if self.cpu_s is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            _limit(resource.RLIMIT_CPU, int(time.process_time()) + 1 + self.cpu_s, hard)

    def story(self, signal_number: int) -> str:
        """Why a signal ended a task, if that was a limit; else nothing."""
        if signal_number == signal.SIGXCPU and self.cpu_s is not None:
            return f"used up its limit of {self.cpu_s} s of processor time"
        if signal_number == signal.SIGXFSZ and self.file_size is not None:
            return f"wrote a file over its limit of {self.file_size:,} bytes"
        return ""


def forgo_privileges() -> None:
    """No program that is executed from here on gets more rights, by its owner or otherwise."""
    with contextlib.suppress(ImportError, OSError, AttributeError):  # the limits hold without it
        importlib.import_module("ctypes").CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit(kind: int, soft: int, hard: int) -> None:
    import resource  # noqa: PLC0415 - as above

    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def _number(words: Mapping[str, object], name: str) -> int | None:
    value = words.get(name)
    if value is not None and not isinstance(value, int):
        raise ValueError(f"not a number: {value!r}")
    return value


def launch(
    program: str,
    argv: list[str],
    environment: Mapping[bytes, bytes],
    *,
    limits: Bounds,
    stdout: int,
    stderr: int,
    groups: list[str],
) -> int:
    """Start a program that is bound from its first instruction on, in a session of its own, and in
    those control groups. Returns its number. Raises OSError, and then nothing was started.

    A fork, for `posix_spawn` can't set limits: some 0.5 ms more, for who asked for them.
    """
    ready, failed = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for group in groups:
                descriptor = os.open(f"{group}/cgroup.procs", os.O_WRONLY)
                os.write(descriptor, b"0")
                os.close(descriptor)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            for ignored in DEFAULT_SIGNALS:
                signal.signal(ignored, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            limits.bind()
            os.execve(program, argv, environment)  # noqa: S606 - no shell is what we want
        except BaseException as error:  # noqa: BLE001 - told to who waits for it
            number = error.errno if isinstance(error, OSError) and error.errno else 22
            os.write(failed, number.to_bytes(4, "little"))
        finally:
            os._exit(127)
    os.close(failed)
    with open(ready, "rb") as pipe:  # noqa: PTH123
        told = pipe.read(4)
    if told:
        os.waitpid(pid, 0)
        number = int.from_bytes(told, "little")
        raise OSError(number, os.strerror(number), program)
    return pid
