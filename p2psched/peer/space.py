"""A peer's disk that fills: what it does then, and how it comes back by itself (ADR 0022).

Three stages, `model.raft.Room`. With little room it leads no more, gets no tasks, takes no jobs and
no data, and says so; it follows the ledger, votes and answers reads as ever, from the space that
was left for that. When a write finds nothing at all, the ballast is given back; what still does
not fit waits. Once there is space for what must be left and for a new ballast, all is as before.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from p2psched.model.act_messages import Do
from p2psched.model.actions import GROWING
from p2psched.model.blob_messages import BeginUpload, CopyBlob
from p2psched.model.checkpoint_messages import CopyCheckpoint
from p2psched.model.config import Config
from p2psched.model.errors import NoSpace, Refused
from p2psched.model.limits import MIB
from p2psched.model.messages import AnswerBody, CallBody, Submit
from p2psched.model.raft import Room
from p2psched.model.status_messages import SpaceStatus
from p2psched.observe.beat import until_beat
from p2psched.store.folder import DataFolder
from p2psched.store.space import (
    Ballast,
    DiskSpace,
    ballast_of,
    is_no_space,
    least_of,
    log_bytes_of,
    space_of,
)

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5  # between two looks at the disk
FAR_LOOK_S: Final = 2.0  # where several times as much is free as it needs
FAR: Final = 4
RETRY_AFTER_S: Final = 2.0  # what a caller is told
BALLAST_NAME: Final = "ballast"
# A peer that is about to start needs as much for its identity and its first records.
START_BYTES: Final = 1 * MIB

Answer = Callable[[CallBody], Awaitable[AnswerBody]]


def open_folder(config: Config) -> tuple[DataFolder, SpaceKeeper]:
    """The folder, locked, and who looks after the space in it. Blocks. Raises P2PSchedError."""
    path = Path(config.data).expanduser().absolute()
    folder = DataFolder.open(path, create=True, name=config.name)
    try:
        return folder, SpaceKeeper(path, least=config.space_min, ballast=config.ballast)
    except BaseException:
        folder.close()
        raise


class SpaceWatch:
    """Pure. `least` must be free; half as much again before the disk counts as one with room."""

    def __init__(self, least: int) -> None:
        self.least = least
        self.room = Room.ENOUGH

    @property
    def enough(self) -> int:
        return self.least + self.least // 2

    def look(self, free: int, *, stalled: bool, has_ballast: bool) -> Room:
        """`free`: without the ballast, which must be whole before there is room again."""
        if stalled:
            self.room = Room.NONE
        elif free < self.least or not has_ballast:
            self.room = Room.LOW
        elif free >= self.enough:
            self.room = Room.ENOUGH
        elif self.room is Room.NONE:
            self.room = Room.LOW
        return self.room


class SpaceKeeper:
    """Of one data folder. `on_room` is called from the loop, at each change."""

    def __init__(self, folder: Path, *, least: int | None, ballast: int | None) -> None:
        """None: by the size of the disk. Blocks. Raises Refused if the disk can't be looked at."""
        self._folder = folder
        total = self._space().total_bytes
        self._total = total
        size = ballast_of(total) if ballast is None else ballast
        self._ballast = Ballast(folder / BALLAST_NAME, size)
        self.watch: Final = SpaceWatch(least_of(total) if least is None else least)
        self.on_room: Callable[[Room], None] = lambda _room: None
        self._stalled = False
        self._free = 0
        self._looked = threading.Lock()  # a ballast is not made while it is given back
        self._look_now = asyncio.Event()
        if self._space().free_bytes < START_BYTES:
            self.give_back()

    @property
    def room(self) -> Room:
        return self.watch.room

    def status(self) -> SpaceStatus:
        """As of the last look."""
        return SpaceStatus(self.room.name.lower(), self._free, self.watch.least)

    def log_bytes(self, wanted: int) -> int:
        """Of the ledger, between two snapshots."""
        return log_bytes_of(self._total, wanted)

    def _space(self) -> DiskSpace:
        try:
            return space_of(self._folder)
        except OSError as error:
            raise Refused(f"the space in {self._folder} can't be read: {error}") from error

    # --- the disk ---

    async def run(self) -> None:
        """Look at the disk until cancelled."""
        while True:
            self._note(*await asyncio.to_thread(self._look))
            try:
                async with asyncio.timeout(until_beat(self.until_look_s)):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()

    @property
    def until_look_s(self) -> float:
        """Until the next look at the disk, as it was at the last one."""
        far = FAR * (self.watch.enough + self._ballast.size)
        return FAR_LOOK_S if self.room is Room.ENOUGH and self._free >= far else LOOK_S

    def _look(self) -> tuple[int, bool]:
        """What is free, and whether the ballast is whole; it is made again if there is room."""
        with self._looked:
            free = self._space().free_bytes
            if self._ballast.is_there or free >= self.watch.enough + self._ballast.size:
                made = self._ballast.make()
                return self._space().free_bytes, made
            return free, not self._ballast.size

    def _note(self, free: int, has_ballast: bool) -> None:
        before, self._free = self.room, free
        room = self.watch.look(free, stalled=self._stalled, has_ballast=has_ballast)
        if room is not before:
            say = log.info if room is Room.ENOUGH else log.error
            say("disk-room", extra={"room": room.name.lower(), "free_bytes": free})
            self.on_room(room)

    # --- the ledger's writes (`log_writer.SpaceListener`) ---

    def give_back(self) -> bool:
        """A write found no space. True if there is some now. From any thread."""
        with self._looked:
            released = self._ballast.release()
        if released:
            log.error("ballast-released", extra={"bytes": self._ballast.size})
        return released

    def on_stalled(self, *, stalled: bool) -> None:
        self._stalled = stalled
        self._look_now.set()

    def patiently(self, write: Callable[[], int]) -> int:
        """What `write` returns; if it finds no space, once more with the ballast's. Raises NoSpace
        then, and whatever else `write` raises."""
        try:
            return write()
        except Refused as error:
            if not is_no_space(error):
                raise
            if self.give_back():
                return self.patiently(write)
            raise NoSpace(str(error)) from error

    # --- callers ---

    def gate(self, answer: Answer) -> Answer:
        """The same answers, but to what would need space while there is little."""

        async def gated(body: CallBody) -> AnswerBody:
            refusal = self.refusal(body)
            if refusal is not None:
                raise refusal
            return await answer(body)

        return gated

    def refusal(self, body: CallBody) -> NoSpace | None:
        """An error for what would need space while there is little."""
        if self.room is Room.ENOUGH:
            return None
        grows = isinstance(body, Submit | BeginUpload | CopyBlob | CopyCheckpoint) or (
            isinstance(body, Do) and isinstance(body.action, GROWING)
        )
        if not grows:
            return None
        return NoSpace(self._advice(), retry_after_s=RETRY_AFTER_S)

    def _advice(self) -> str:
        return (
            f"no space: {self._free / MIB:.0f} MiB are free in {self._folder} of this peer, which "
            f"takes jobs and data again at {(self.watch.enough + self._ballast.size) / MIB:.0f}: "
            "free some there (`p2psched job rm` removes old results), or ask another peer"
        )
