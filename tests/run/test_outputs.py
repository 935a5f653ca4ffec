"""What tasks print, as files: bounded, to be followed, and kept when no result brings it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import limits
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec
from p2psched.model.log_messages import OutputRead, ReadOutput
from p2psched.run.host import spool
from p2psched.run.live_output import Outputs
from tests.run.rig import Rig, functions, program, with_pool

pytestmark = pytest.mark.process

PEER = PeerId("p" * 32)
BIG = 3 * limits.OUTPUT_BYTES_MAX


# --- one stream -----------------------------------------------------------------------------------


def read_all(path: Path, size: int) -> tuple[list[tuple[int, bytes]], int]:
    """Every piece that is there, and how much was written."""
    pieces, offset, total = [], 0, 0
    while (found := spool.read(str(path), offset, size)) is not None:
        start, data, total = found
        if not data:
            break
        pieces.append((start, data))
        offset = start + len(data)
    return pieces, total


@given(
    parts=st.lists(st.integers(1, 70), max_size=12),
    size=st.integers(1, 50),
)
def test_a_stream_is_its_first_and_its_last_bytes_whatever_the_writes(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], size: int
) -> None:
    path = tmp_path_factory.mktemp("spool") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "HEAD_BYTES", 40)
        patch.setattr(spool, "RING_BYTES", 30)
        one = spool.Spool()
        one.open(str(path))
        written = bytes(range(256)) * 4
        total = 0
        for part in parts:
            one.write(written[total : total + part])
            total += part
        pieces, told = read_all(path, size)
        one.end(keep=False)
    assert not list(path.parent.iterdir())
    assert told == total
    for start, data in pieces:
        assert data == written[start : start + len(data)]
    here = {start + n for start, data in pieces for n in range(len(data))}
    assert here == {n for n in range(total) if n < 40 or n >= total - 30}


def test_a_stream_that_cannot_be_written_is_a_prefix(tmp_path: Path) -> None:
    one = spool.Spool()
    one.open(str(tmp_path / "no" / "s"))
    one.write(b"abc")
    one.write(b"def")
    one.end(keep=True)
    assert not list(tmp_path.iterdir())


def test_the_oldest_files_go_first_of_a_job_and_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "OUTPUTS_JOB_BYTES_MAX", 250)
    monkeypatch.setattr(spool, "OUTPUTS_BYTES_MAX", 600)
    monkeypatch.setattr(spool, "OUTPUTS_FILES_MAX", 5)
    for number in range(8):
        for job in ("one", "two"):
            path = tmp_path / f"{job}.{number}.9.stdout"
            path.write_bytes(bytes(100))
            os.utime(path, (number, number))
    small = tmp_path / "three.0.9.stdout"
    small.write_bytes(b"x")
    assert spool.prune(str(tmp_path)) == (5, 401)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{job}.{n}.9.stdout" for job in ("one", "two") for n in (6, 7)} | {small.name}
    ring = tmp_path / f"one.6.9.stdout{spool.RING}"  # a stream is one, whatever its files
    ring.write_bytes(bytes(100))
    assert spool.prune(str(tmp_path)) == (4, 401)
    assert not (tmp_path / "one.7.9.stdout").exists()


# --- of tasks that run ----------------------------------------------------------------------------


def shell(script: str) -> JobSpec:
    return program("/bin/sh", "-c", script)


def kept(rig: Rig) -> list[str]:
    return sorted(path.name for path in rig.pool.output.kept_folder.iterdir())


async def text_of(rig: Rig, job: JobId, index: int = 0, *, stderr: bool = False) -> bytes | None:
    """All that the pool has of an attempt; its first and last bytes if it was cut."""
    found, offset = b"", 0
    while True:
        body = ReadOutput(job, index, 9, PEER, stderr, offset)
        answer: OutputRead = await rig.pool.output.read(body)
        if not answer.known:
            return found if offset else None
        if not answer.data:
            return found
        found, offset = found + answer.data, answer.offset


def in_pool(tmp_path: Path, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    with_pool(tmp_path, scenario)


def test_what_a_result_cannot_bring_is_kept_and_what_it_brings_is_not(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        small = rig.start(shell("echo small; sleep 0.1"))
        await rig.ended(small)
        assert kept(rig) == []
        for script in (f"head -c {BIG} /dev/zero", f"sleep 0.1; head -c {BIG} /dev/zero >&2"):
            batch = rig.start(shell(script))
            await rig.ended(batch)
            stderr = "sleep" in script
            text = await text_of(rig, rig.job(batch), stderr=stderr)
            assert text == bytes(BIG)
            assert await text_of(rig, rig.job(batch), stderr=not stderr) is None
        assert len(kept(rig)) == 2
        assert not list(rig.folder.glob("*.std*"))

    in_pool(tmp_path, scenario)


@pytest.mark.smoke
def test_what_a_task_printed_that_was_ended_is_kept(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(shell("echo begun; sleep 600"))
        job = rig.job(batch)
        await rig.until(lambda: bool(list(rig.folder.glob("*.stdout"))))
        rig.pool.stop(batch, Cause.CANCELLED)
        await rig.ended(batch)
        assert await text_of(rig, job) == b"begun\n"

    in_pool(tmp_path, scenario)


def test_the_output_of_a_running_function_can_be_followed_and_is_kept(tmp_path: Path) -> None:
    go = tmp_path / "go"

    def talk(text: str) -> int:
        import pathlib  # noqa: PLC0415 - it travels by value
        import time  # noqa: PLC0415

        print(text, flush=True)
        while not pathlib.Path(go).exists():
            time.sleep(0.01)
        print("z" * BIG)
        return 1

    async def scenario(rig: Rig) -> None:
        code = cloudpickle.dumps(talk)
        batch = rig.start(functions(code=code, arguments=[("hello",)]))
        job = rig.job(batch)
        piece = None
        while not (piece and piece[1]):
            piece = await rig.pool.output.tail(job, 0, False, 0)
        assert piece == (6, b"hello\n")
        go.touch()
        await rig.ended(batch)
        assert await text_of(rig, job) == b"hello\n" + b"z" * BIG + b"\n"
        assert rig.outcomes[batch].tasks[0].header["stdout_total"] == BIG + 7
        quiet = rig.start(functions(code=code, arguments=[("again",)]))
        await rig.ended(quiet)
        await asyncio.to_thread(go.unlink)
        stopped = rig.start(functions(code=code, arguments=[("stopped",)]))
        while await text_of(rig, rig.job(stopped)) != b"stopped\n":
            assert rig.outcomes[stopped].unstarted is None
        rig.pool.stop(stopped, Cause.CANCELLED)
        await rig.ended(stopped)
        assert await text_of(rig, rig.job(stopped)) == b"stopped\n"
        assert not list(rig.folder.glob("*.std*"))

    in_pool(tmp_path, scenario)


def test_what_a_killed_peer_left_is_kept_by_its_next_life(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    job = JobId("c" * 32)
    (folder / f"{job[:8]}.3.9.stdout").write_bytes(b"last words\n")
    (folder / "other").write_bytes(b"?")
    outputs = Outputs(folder, lambda: iter(()))
    outputs.open()
    assert [path.name for path in outputs.kept_folder.iterdir()] == [f"{job[:8]}.3.9.stdout"]
    assert outputs.sizes() == (1, 11)
    assert (folder / "other").exists()
