"""Public events of the ledger, and the calls that read them and the past.

An event has a place: the index of its entry, and its position among the events of that entry. Both
are equal on every peer, so a place is a cursor that any peer takes. Names of kinds and of their
fields stay; new ones come with a feature level, so that all peers count alike (ADR 0037).
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import EMPTY, TaskSet

EVENTS_MAX: Final = 1_000  # in one page
EVENT_VERSION: Final = 1  # of the form in which events leave the cluster

Value = str | int | bool | list[str]


class Place(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Of an event, or between two. `position` counts the events of one entry, from 0."""

    index: int  # of the entry
    position: int = 0

    def __str__(self) -> str:
        return f"{self.index}:{self.position}"

    @staticmethod
    def parse(text: str) -> Place:
        """Of `12:3`, or `12` for `12:0`. Raises ValueError."""
        index, colon, position = text.strip().partition(":")
        parts = (index, position) if colon else (index, "0")
        if len(text) > 40 or not all(part.isascii() and part.isdecimal() for part in parts):
            raise ValueError(f"{text[:40]!r} is no place in the ledger: write it like 12 or 12:3")
        place = Place(int(parts[0]), int(parts[1]))
        if max(place.index, place.position) >= 2**63:
            raise ValueError(f"there is no entry {text[:40]}")
        return place

    @property
    def behind(self) -> Place:
        """The first place after this event."""
        return Place(self.index, self.position + 1)


class EventRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something that happened, as the ledger has it."""

    index: int
    position: int
    command: int  # index of the command that led to it, as grants are; 0: not a command
    at_ms: int  # ledger time
    wall_ms: int  # Unix time of whoever stamped the entry, for people
    kind: str  # "job.ended"; see docs/events.md
    job: JobId | None = None
    peer: PeerId | None = None
    tasks: TaskSet = EMPTY
    data: dict[str, Value] = {}
    value: bytes | None = None  # of a key, for who asks for values

    @property
    def place(self) -> Place:
        return Place(self.index, self.position)


class EventFilter(msgspec.Struct, frozen=True, array_like=True):
    """Which events somebody wants: all that fit."""

    kinds: tuple[str, ...] = ()  # "job.ended", or "job." for all that begin so; none: all
    job: JobId | None = None
    prefix: str = ""  # of keys: no event that is of another key
    values: bool = False  # with the values of keys: for who reads, told to nobody outside

    def fits(self, record: EventRecord) -> bool:
        if self.job is not None and record.job != self.job:
            return False
        kind = record.kind
        if self.prefix and kind.startswith("key."):
            key = record.data["key"]
            if not isinstance(key, str) or not key.startswith(self.prefix):
                return False
        return not self.kinds or any(
            kind == wanted or (wanted.endswith(".") and kind.startswith(wanted))
            for wanted in self.kinds
        )


# --- calls ----------------------------------------------------------------------------------------


class FetchEvents(msgspec.Struct, frozen=True, array_like=True, tag=80):
    """Events from a place on, at most `wait_ms` after the call if there are none yet. Without a
    place: none, but where the next one will be."""

    start: Place | None
    wanted: EventFilter = EventFilter()
    limit: int = EVENTS_MAX
    wait_ms: int = 0
    here_only: bool = False  # not passed on: a peer that lacks the place says so


class ReadPast(msgspec.Struct, frozen=True, array_like=True, tag=81):
    """The answer that a call would have got once entry `index` was applied, and no other."""

    index: int
    body: bytes  # MessagePack of a `FindJob`, `ShowJob`, `ListJobs` or `ListPeers`
    here_only: bool = False


class AddHook(msgspec.Struct, frozen=True, array_like=True, tag=82):
    """Tell this address of events that fit, from `start` on, or from now on. Safe to repeat."""

    name: str
    url: str
    wanted: EventFilter = EventFilter()
    start: Place | None = None


class RemoveHook(msgspec.Struct, frozen=True, array_like=True, tag=83):
    name: str


class ListHooks(msgspec.Struct, frozen=True, array_like=True, tag=84):
    here_only: bool = False  # not passed on to whoever delivers


EventCall = FetchEvents | ReadPast | AddHook | RemoveHook | ListHooks


# --- answers --------------------------------------------------------------------------------------


class EventPage(msgspec.Struct, frozen=True, array_like=True, tag=80):
    """Events that fit, in the order of their places. `following`: where to go on; all that fits
    before it is here."""

    events: tuple[EventRecord, ...]
    following: Place
    # The oldest place that is left, if the one that was asked for is not: then there are no events.
    oldest: Place | None = None


class HookAdded(msgspec.Struct, frozen=True, array_like=True, tag=81):
    key: bytes  # what its calls are signed with


class HookView(msgspec.Struct, frozen=True, array_like=True):
    name: str
    url: str
    wanted: EventFilter
    acked: Place  # all that fits before it has arrived
    behind: int  # entries of the ledger since
    tries: int = 0  # that failed since the last one that didn't, as far as the peer knows
    error: str = ""  # of the last of those


class HookList(msgspec.Struct, frozen=True, array_like=True, tag=82):
    hooks: tuple[HookView, ...]


EventAnswer = EventPage | HookAdded | HookList
