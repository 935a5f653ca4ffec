"""Bugs in what is durable and in how damage is found, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from unittest.mock import patch

from p2psched.store import recovery, segments, snapshots
from p2psched.testing.sim_disk import SimDisk
from tests.sim.mutants import OFTEN, RESTLESS, Mutant, Planted


def _forgets_names() -> Planted:
    """New files and new names are not synced in their folder."""
    return patch.object(SimDisk, "_sync_folder", lambda disk, name: disk._step(name))


@contextmanager
def _trusts_every_byte() -> Iterator[None]:
    """No checksum of a record is looked at."""

    class Blind:
        @staticmethod
        def crc32(data: bytes, start: int = 0) -> object:
            return _Any()

    decode = segments.decode_record

    def trusting(data: memoryview, at: int, seed: int) -> segments.Record | None:
        with patch.object(segments, "zlib", Blind):
            return decode(data, at, seed)

    with patch.object(recovery, "decode_record", trusting):
        yield


class _Any:
    """Equals whatever it is compared with."""

    __hash__ = None  # type: ignore[assignment]  # never a key

    def __ne__(self, other: object) -> bool:
        return False


def _trusts_snapshots() -> Planted:
    """Nobody compares a state with its checksum."""

    return patch.object(snapshots, "check_file", snapshots._read_head)


def _cuts_at_the_first_bad_record() -> Planted:
    """As if all that is bad were a write that the loss of power cut short."""
    return patch.object(recovery, "find_later_group", lambda data, bad, seed: None)


ROTTEN: Final = replace(RESTLESS, rot_every_ms=200, crash_at_disk=0.02)

DISK_MUTANTS: Final = (
    Mutant(
        name="a new file's name is not synced in its folder",
        plant=_forgets_names,
        faults=RESTLESS,
        broken="P3",
    ),
    Mutant(
        name="the checksums of records are not looked at",
        plant=_trusts_every_byte,
        faults=ROTTEN,
        peers=5,
        broken="P10",
        jobs_max=20,
    ),
    Mutant(
        name="the checksum of a snapshot is not looked at",
        plant=_trusts_snapshots,
        faults=ROTTEN,
        peers=5,
        broken="P14",
        jobs_max=20,
        snapshots=OFTEN,
    ),
    Mutant(
        name="the log is cut at damage as at a torn tail",
        plant=_cuts_at_the_first_bad_record,
        # A vote has to be behind what is damaged, and its peer to start before others miss it.
        faults=replace(ROTTEN, rot_every_ms=60, crash_at_disk=0.05),
        peers=5,
        broken="P3",
        jobs_max=20,
    ),
)
