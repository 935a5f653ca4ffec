"""What one task may use, and how far it is shut in."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.needs import Labels

# A peer that can shut tasks in so has this label, and no other peer may say that it does.
SANDBOX_LABEL: Final = "sandbox"
SANDBOXES: Final = ("bwrap",)

BYTES_MAX: Final = 1 << 50
MEMORY_BYTES_MIN: Final = 1 << 20
FILES_MIN: Final = 16  # fewer, and no interpreter starts
COUNT_MAX: Final = 1 << 20
CPU_S_MAX: Final = 10 * 365 * 86_400


class Isolation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of each task by itself. None: as its peer has it. Bytes, numbers, seconds."""

    memory: int | None = None  # of all its processes
    files: int | None = None  # that one process has open
    processes: int | None = None
    cpu_s: int | None = None  # processor time of one process
    file_size: int | None = None  # of any file that it writes
    core: int | None = None  # of a core dump
    own_home: bool = False  # HOME is its own folder
    sandbox: str = ""  # one of SANDBOXES
    network: bool = True  # in a sandbox only

    def __post_init__(self) -> None:
        for what, value, low, high in (
            ("bytes of memory", self.memory, MEMORY_BYTES_MIN, BYTES_MAX),
            ("open files", self.files, FILES_MIN, COUNT_MAX),
            ("processes", self.processes, 1, COUNT_MAX),
            ("seconds of processor time", self.cpu_s, 1, CPU_S_MAX),
            ("bytes of a file", self.file_size, 0, BYTES_MAX),
            ("bytes of a core dump", self.core, 0, BYTES_MAX),
        ):
            if value is not None and (type(value) is not int or not low <= value <= high):
                raise ValueError(f"a limit of {what} is {low:,} to {high:,}, not {value!r}")
        if self.sandbox and self.sandbox not in SANDBOXES:
            raise ValueError(
                f"a sandbox is made by {' or '.join(SANDBOXES)}, not by {self.sandbox[:64]!r}"
            )
        if not self.network and not self.sandbox:
            raise ValueError("only a sandbox has no network: --sandbox bwrap")

    def check(self, require: Labels, *, program: bool) -> None:
        """Raises ValueError unless a job that requires these labels gets the sandbox it wants."""
        if self.sandbox and not program:
            raise ValueError("only commands run in a sandbox, not functions: submit a command")
        if self.sandbox and (SANDBOX_LABEL, self.sandbox) not in require:
            raise ValueError(
                f"a job with a sandbox requires the label {SANDBOX_LABEL}={self.sandbox} of peers"
            )
