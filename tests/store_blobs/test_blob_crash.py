"""Power fails after every single call that changes the disk: what was told durable is there."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2psched.model.blob import BlobRef
from p2psched.store.blob_reads import NotHere
from p2psched.store.blobs import BlobFiles
from tests.store_blobs.rig import LosingCalls, Now, PowerCut, QuickCalls, begin, get, name, put

RNG = random.Random(3)
BLOBS = [RNG.randbytes(size) for size in (200, 64, 1, 500)]
MADE = [RNG.randbytes(size) for size in (130, 70, 10)]
STEPS_MAX = 60  # more than the story takes


@dataclass
class Story:
    """What was acknowledged before the power failed."""

    durable: list[bytes] = field(default_factory=list)
    ended: bool = False

    def run(self, store: BlobFiles, folder: Path) -> None:
        for data in BLOBS[:2]:
            put(store, data)
            self.durable.append(data)
        files: list[tuple[BlobRef, Path]] = []
        for number, data in enumerate(MADE):
            path = folder / f"made-{number}"
            path.write_bytes(data)
            files.append((name(data), path))
        store.adopt(files)
        self.durable += MADE
        for data in BLOBS[2:]:
            put(store, data)
            self.durable.append(data)
        self.ended = True


def _crash(folder: Path, calls: LosingCalls) -> Story:
    folder.mkdir()
    story = Story()
    store = BlobFiles(folder / "blobs", now_ms=Now(), calls=calls)
    with contextlib.suppress(PowerCut):
        story.run(store, folder)
    store.close()
    calls.lose()
    return story


def _lost(folder: Path, story: Story) -> list[bytes]:
    """What was told durable and is not; everything else that is known must be sound, and half a
    blob can be gone on with."""
    store = BlobFiles(folder / "blobs", now_ms=Now(), calls=QuickCalls())
    try:
        lost = [data for data in story.durable if not store.is_here(name(data))]
        for data in (*BLOBS, *MADE):
            if store.is_here(name(data)):
                if get(store, name(data)) != data:
                    lost.append(data)
            else:
                begin(store, data)
                assert get(store, put(store, data)) == data
        return lost
    finally:
        store.close()


@pytest.mark.parametrize("steps", range(1, STEPS_MAX))
def test_what_was_told_durable_survives_a_power_cut_at_any_step(tmp_path: Path, steps: int) -> None:
    story = _crash(tmp_path / "disk", LosingCalls(steps))
    assert _lost_or_damaged(tmp_path / "disk", story) == []


def _lost_or_damaged(folder: Path, story: Story) -> list[bytes]:
    try:
        return _lost(folder, story)
    except NotHere as error:
        return [str(error).encode()]


def test_the_story_is_told_to_its_end_within_the_steps(tmp_path: Path) -> None:
    assert _crash(tmp_path / "disk", LosingCalls(STEPS_MAX)).ended


@pytest.mark.parametrize("left_out", ["syncs", "syncs_folders"])
def test_this_disk_notices_a_store_that_does_not_sync(tmp_path: Path, left_out: str) -> None:
    calls = LosingCalls(STEPS_MAX, **{left_out: False})
    assert _lost_or_damaged(tmp_path / "disk", _crash(tmp_path / "disk", calls)) != []
