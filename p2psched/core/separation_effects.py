"""What a peer that may be cut off keeps on its own disk, and what it is told from there."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.reconcile import (
    KeptResult,
    OwnedPart,
    Recollection,
    Reconciliation,
    SpoolOutcome,
)

# --- events ---------------------------------------------------------------------------------------


class Recalled(msgspec.Struct, frozen=True):
    """Before `Began`: what the process before this one left."""

    now_ms: int
    recollection: Recollection


class Spooled(msgspec.Struct, frozen=True):
    """A job is in the spool, durably."""

    now_ms: int
    job: JobId
    spec: JobSpec


# --- effects --------------------------------------------------------------------------------------


class KeepOwned(msgspec.Struct, frozen=True):
    """That is all that this peer works on, if it has worked on it for a while. No hurry: what isn't
    on the disk at a crash is run elsewhere, or later."""

    owned: tuple[OwnedPart, ...]
    specs: dict[JobId, JobSpec]
    incarnation: int  # that works on it
    since: int  # the last one that heard a majority


class KeepResults(msgspec.Struct, frozen=True):
    """Results that the ledger can't be told of now: `anew` they are all that there are."""

    results: tuple[KeptResult, ...]
    anew: bool


class SpoolDecided(msgspec.Struct, frozen=True):
    """A job needs its place in the spool no more."""

    outcome: SpoolOutcome


class Reported(msgspec.Struct, frozen=True):
    """All that was kept without a majority is decided: the results on the disk may go."""

    report: Reconciliation


SeparationEvent = Recalled | Spooled
SeparationEffect = KeepOwned | KeepResults | SpoolDecided | Reported
