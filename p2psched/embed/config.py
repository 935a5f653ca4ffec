"""What a program says about the peer that it embeds; everything else has a default that suits it.

This is the only place below which nothing is guessed: `complete` reads the machine and the
environment once, and gives the whole configuration that the peer gets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2psched.model import config as whole
from p2psched.model.errors import UsageError
from p2psched.store.records import default_runtime_dir

# An embedded peer is gone within a second, whether or not anybody is there to take its tasks.
LEAVE_MS: Final = 400
GRACE_MS: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Of an embedded peer. `name` is for people, `data` is its folder and no other peer's."""

    name: str
    data: str | Path
    join: Sequence[str] = ()  # peers of the cluster, host:port; none: found one, or a restart
    slots: int | None = None  # tasks at a time; None: as many as cores; 0 runs nothing
    votes: bool | None = None  # True: may become a voter; None: only as the founder, who has to
    zone: str = ""  # what fails together with it: voters are spread over zones
    listen: str = "127.0.0.1:0"
    advertise: str | None = None  # where others reach this peer, if it is not `listen`
    secret_file: str | Path | None = None  # to join a cluster of another machine
    insecure: bool = False  # allow to listen for other machines, unencrypted
    # The interpreter of the tasks. A program that is no Python interpreter has to name one.
    python: str | Path = field(default_factory=lambda: sys.executable)
    timing: str = "lan"  # or "wan", "edge": slower timers; the same on all peers of the cluster
    runtime_dir: str | Path | None = None  # of the records of local peers; None: the command line's

    def __post_init__(self) -> None:
        if isinstance(self.join, str):
            raise UsageError(f"join is a list of addresses: write join=[{self.join!r}]")

    def complete(self) -> whole.Config:
        """Raises UsageError for values that no peer can have."""
        if not str(self.python):
            raise UsageError("this program is no Python interpreter: pass python= for the tasks")
        runtime_dir = self.runtime_dir or os.environ.get("P2PSCHED_RUNTIME_DIR")
        try:
            return whole.Config(
                name=self.name,
                data=str(Path(self.data).expanduser().absolute()),
                listen=self.listen,
                advertise=self.advertise,
                join=tuple(self.join),
                slots=len(os.sched_getaffinity(0)) if self.slots is None else self.slots,
                python=str(self.python),
                secret_file=None if self.secret_file is None else str(self.secret_file),
                insecure=self.insecure,
                votes=self.votes,
                zone=self.zone,
                embedded=True,
                leave_ms=LEAVE_MS,
                grace_ms=GRACE_MS,
                runtime_dir=str(runtime_dir or default_runtime_dir(os.environ)),
            ).with_timing(self.timing)
        except ValueError as error:
            raise UsageError(str(error)) from error
