"""Calls about queues that put nothing into the ledger, and their answers."""

from __future__ import annotations

from typing import Final

import msgspec

QUEUES_LISTED_MAX: Final = 1_000  # in one page
ITEMS_LISTED_MAX: Final = 500
SHOWN_BYTES_MAX: Final = 256  # of a value in a list


class AwaitItems(msgspec.Struct, frozen=True, array_like=True, tag=100):
    """What a claim has, as soon as it has something; after `wait_ms`, that it waits still. Answered
    with an `ItemsTaken`; without items, and not waiting: the claim is over, or never was."""

    claim: str
    wait_ms: int = 0


class ListQueues(msgspec.Struct, frozen=True, array_like=True, tag=101):
    """By name, those behind `after`."""

    after: str = ""
    limit: int = QUEUES_LISTED_MAX


class ListItems(msgspec.Struct, frozen=True, array_like=True, tag=102):
    """By id, those behind `after`. Takes none of them."""

    queue: str
    after: int = 0
    limit: int = ITEMS_LISTED_MAX


QueueCall = AwaitItems | ListQueues | ListItems


# --- answers --------------------------------------------------------------------------------------


class QueueView(msgspec.Struct, frozen=True, array_like=True):
    name: str
    items: int  # all of them
    in_flight: int  # of these
    takers: int  # that wait
    bytes: int
    put: int  # items that were ever put: the newest id
    max_deliveries: int  # 0: as often as it takes


class QueueList(msgspec.Struct, frozen=True, array_like=True, tag=101):
    queues: tuple[QueueView, ...]
    more: bool


class ItemView(msgspec.Struct, frozen=True, array_like=True):
    id: int
    state: str  # ready, delayed, in flight, or behind (an earlier one of its key)
    priority: int
    key: str
    deliveries: int
    receipt: int  # of who has it
    put_wall_ms: int
    size: int  # of the value
    shown: bytes  # its first bytes
    origin: int
    died_after: int


class ItemList(msgspec.Struct, frozen=True, array_like=True, tag=102):
    items: tuple[ItemView, ...]
    more: bool


QueueCallAnswer = QueueList | ItemList
