"""Functions that are called for each event of a cluster: at least once, in order, resumably.

    @on("job.ended", cursor="ended.cursor")
    async def tell(event):
        print(event.job, event.data["state"])

    async with Client() as client:
        await listen(client, tell)

An event is done with when its function has returned; then the cursor moves on. Whoever is killed in
between gets it again at the next start, so a function must bear a repeat: `event.place` tells them
apart. A peer that dies costs nothing: the next one goes on at the same place.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from p2psched.client import events
from p2psched.client.client import Client
from p2psched.core.event_log import check_kinds
from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.event_messages import EventFilter, EventPage, EventRecord, Place
from p2psched.model.ids import JobId, is_id

RETRY_S: Final = 0.5  # after nobody has answered for as long as the client is patient
ACK_S: Final = 0.2  # many quick ones are acknowledged together

Handler = Callable[[EventRecord], Awaitable[None] | None]


class Cursor(Protocol):
    """Keeps a text. Called in a thread, one call at a time."""

    def load(self) -> str:
        """The last one that was stored; empty if there is none."""
        ...

    def store(self, text: str) -> None:
        """Durable on return."""
        ...


class FileCursor:
    """In a file, which is replaced whole."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def load(self) -> str:
        try:
            return self._path.read_text().strip()
        except FileNotFoundError:
            return ""

    def store(self, text: str) -> None:
        aside = self._path.with_name(f".{self._path.name}.new")
        with aside.open("w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)


class _NoCursor:
    """Nothing is kept: each start begins anew."""

    def load(self) -> str:
        return ""

    def store(self, text: str) -> None:
        pass


class Listener:
    """Made by `on`. It can still be called as the function that it was."""

    def __init__(
        self, handle: Handler, wanted: EventFilter, cursor: Cursor, *, from_beginning: bool
    ) -> None:
        self._handle = handle
        self._wanted = wanted
        self._cursor = cursor
        self._from_beginning = from_beginning
        self._place = Place(0)  # where it goes on: all before is done with
        self._acked: Place | None = None
        self._acked_s = 0.0

    def __call__(self, event: EventRecord) -> Awaitable[None] | None:
        return self._handle(event)

    async def run(self, client: Client) -> None:
        """Until it is cancelled. Raises what the function raises, and the event comes again at the
        next start; Refused if the cursor is older than what peers keep, or of another cluster."""
        cluster = (await client.status()).cluster
        self._place = await self._begin(client, cluster)
        try:
            while True:
                try:
                    async for page in events.pages(
                        client.session, start=self._place, wanted=self._wanted
                    ):
                        await self._take(page, cluster)
                except Unavailable:
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._ack(cluster)

    async def _take(self, page: EventPage, cluster: str) -> None:
        loop = asyncio.get_running_loop()
        for record in page.events:
            if inspect.iscoroutinefunction(self._handle):
                await self._handle(record)
            else:
                await asyncio.to_thread(self._handle, record)
            self._place = record.place.behind
            if loop.time() - self._acked_s >= ACK_S:
                await self._ack(cluster)
        self._place = page.following  # also past what nobody wanted: it must not grow too old
        await self._ack(cluster)

    async def _ack(self, cluster: str) -> None:
        if self._place != self._acked:
            place = self._place
            await asyncio.to_thread(self._cursor.store, f"{place}@{cluster}")
            self._acked, self._acked_s = place, asyncio.get_running_loop().time()

    async def _begin(self, client: Client, cluster: str) -> Place:
        text = await asyncio.to_thread(self._cursor.load)
        if text:
            kept, _, whose = text.partition("@")
            try:
                place = Place.parse(kept)
            except ValueError as error:
                raise UsageError(f"the cursor can't be read: {error}") from error
            if whose != cluster:
                raise Refused(f"the cursor is of cluster {whose}, and this is {cluster}")
            self._acked = place
            return place
        find = events.oldest if self._from_beginning else events.now
        self._place = await find(client.session)
        await self._ack(cluster)  # whoever dies before the first event must not lose it
        return self._place


def on(
    *kinds: str,
    job: str | None = None,
    cursor: Cursor | str | Path | None = None,
    start: str = "now",
) -> Callable[[Handler], Listener]:
    """Have a function, plain or async, called with each event (`model.event_messages.EventRecord`)
    of these kinds, or of all: `docs/events.md` names them; `"job."` means all that begin so. `job`:
    a whole id. `cursor`: a file, or what keeps a text; without one each start begins anew, at
    `start`: "now" or "beginning". A plain function runs in a thread."""
    if start not in {"now", "beginning"}:
        raise UsageError(f"a listener starts now or at the beginning, not at {start!r}")
    check_kinds(kinds)
    if job is not None and not is_id(job):
        raise UsageError(f"a job's whole id has 32 hex digits: {job[:40]!r}")
    kept = FileCursor(cursor) if isinstance(cursor, str | Path) else cursor or _NoCursor()
    wanted = EventFilter(kinds, JobId(job) if job is not None else None)

    def made(handle: Handler) -> Listener:
        return Listener(handle, wanted, kept, from_beginning=start == "beginning")

    return made


async def listen(client: Client, *listeners: Listener) -> None:
    """Run listeners beside each other until cancelled. If one fails, all end, and an
    ExceptionGroup says why."""
    async with asyncio.TaskGroup() as group:
        for listener in listeners:
            group.create_task(listener.run(client))
