"""What a peer knows of the load of all, for people. Fields are appended, with defaults."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport


class LoadStatus(msgspec.Struct, frozen=True, array_like=True):
    """What a peer says of its load, and what it costs, since its process started. Bytes are those
    of the reports with what each carries around it."""

    whole: int  # reports
    deltas: int
    bytes_said: int
    bytes_saved: int  # by deltas
    bytes_per_s: float  # said, over the last minute
    budget_bytes_s: float  # that it may say in the long run, in a group of this size
    held_back: int  # times that the budget had nothing left
    bytes_received: int
    dropped: tuple[tuple[str, int], ...]  # reason, and how many reports of others
    reading_us: int  # processor time of one reading of the sensors: moving average
    readings: int


class GetLoads(msgspec.Struct, frozen=True, array_like=True, tag=110):
    """Answered by every peer, from what it has heard."""


class LoadRow(msgspec.Struct, frozen=True, array_like=True):
    peer: PeerId
    name: str  # empty: not known here
    liveness: Liveness
    age_ms: int  # since it was last heard of
    load: LoadReport | None = None


class LoadTable(msgspec.Struct, frozen=True, array_like=True, tag=111):
    me: PeerId  # who answers
    rows: tuple[LoadRow, ...]
    status: LoadStatus
