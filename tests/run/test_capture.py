"""What a task wrote, in bounded memory, and the notes that survive a crash."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import chunks, items, values
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.taskset import TaskSet
from p2psched.run.handed import Running
from p2psched.run.host import capture, frames
from p2psched.run.host.shared import BYTES, Shared, pieces


@given(st.lists(st.integers(0, 3 * capture.HALF), max_size=6))
def test_a_capture_keeps_the_first_and_the_last_bytes(sizes: list[int]) -> None:
    kept = capture.Capture()
    written = b""
    for number, size in enumerate(sizes):
        data = bytes([65 + number]) * size
        written += data
        kept.add(data)
    if len(written) <= 2 * capture.HALF:
        assert kept.body() == written
        assert "x_head" not in kept.header("x")
    else:
        assert kept.body() == written[: capture.HALF] + written[-capture.HALF :]
        assert kept.header("x") == {"x_total": len(written), "x_head": capture.HALF}


@given(st.lists(st.integers(0, 3 * capture.HALF), max_size=4), st.integers(0, 4))
def test_what_two_have_taken_one_behind_the_other_is_as_if_one_had(
    sizes: list[int], cut: int
) -> None:
    whole, first, second = capture.Capture(), capture.Capture(), capture.Capture()
    for number, size in enumerate(sizes):
        data = bytes([65 + number]) * size
        whole.add(data)
        (first if number < cut else second).add(data)
    first.append(second)
    assert (first.body(), first.header("x")) == (whole.body(), whole.header("x"))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.binary(max_size=5))))
def test_pieces_are_contiguous_ranges_of_one_cause(
    records: list[tuple[int, int, bytes]],
) -> None:
    found = pieces([(7, index, cause, 1, item) for index, cause, item in records]).get(7, [])
    seen = [
        (index, cause, item)
        for start, stop, cause, _, data in found
        for index, item in zip(range(start, stop), chunks.unpack(data), strict=True)
    ]
    assert seen == records
    assert sum(piece[3] for piece in found) == len(records)


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 7))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    bodies: list[bytes], step: int
) -> None:
    stream = b"".join(frames.frame(number, body) for number, body in enumerate(bodies))
    reader = frames.Reader()
    out = [
        frame
        for start in range(0, len(stream), step)
        for frame in reader.feed(stream[start : start + step])
    ]
    assert out == list(enumerate(bodies))


@pytest.mark.parametrize("length", [0, frames.FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_of_an_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        list(frames.Reader().feed(length.to_bytes(4, "little") + b"x"))


@given(st.binary(max_size=80))
def test_bytes_are_results_or_a_value_error(data: bytes) -> None:
    try:
        batch, over, ended, found = frames.open_results(data)
    except ValueError:
        return
    again = frames.results(batch, found, over=over, ended=ended)
    assert frames.open_results(again[5:]) == (batch, over, ended, found)


def test_notes_tell_the_task_that_runs_and_the_results_not_yet_sent() -> None:
    memory = os.memfd_create("notes")
    os.ftruncate(memory, BYTES)
    host, peer = Shared(memory), Shared(memory)
    os.close(memory)
    host.open_batch(7)
    host.begin(3, 1000)
    host.finish(3, frames.OK, 5, b"three")
    host.begin(4, 2000)
    state = peer.read()
    assert state is not None
    assert (state.batch, state.index, state.running, state.started_ns) == (7, 4, True, 2000)
    assert state.records == [(7, 3, frames.OK, 5, b"three")]
    host.finish(4, frames.OK, 6, b"four")
    host.open_batch(8)
    state = peer.read()
    assert state is not None
    assert (state.batch, state.running) == (8, False)
    assert [record[:2] for record in state.records] == [(7, 3), (7, 4)]
    host.begin(4, 3000)
    state = peer.read()
    assert state is not None
    assert state.running, "a task of the same number has ended in another batch"
    host.sent()
    state = peer.read()
    assert state is not None
    assert (state.records, state.running) == ([], True)
    host.close()
    peer.close()


def test_a_new_batch_leaves_the_starters_flag_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter may set it between a look at it and the writing of the head."""
    memory = os.memfd_create("notes")
    os.ftruncate(memory, BYTES)
    host, starter = Shared(memory), Shared(memory)
    os.close(memory)
    starter.set_watched(1)
    with monkeypatch.context() as stale:
        stale.setattr(Shared, "is_watched", lambda _: False)
        host.open_batch(7)
    assert starter.is_watched()
    host.close()
    starter.close()


@given(st.binary(min_size=0, max_size=300))
def test_notes_that_a_task_overwrote_are_read_without_harm(damage: bytes) -> None:
    memory = os.memfd_create("notes")
    os.ftruncate(memory, BYTES)
    shared = Shared(memory)
    os.pwrite(memory, damage, 0)
    os.close(memory)
    state = shared.read()
    assert state is None or all(record[2] < len(frames.CAUSES) for record in state.records)
    shared.close()


def test_of_results_that_are_partly_damaged_nothing_is_taken() -> None:
    spec = JobSpec("job", TaskSet.of(0, 2), ProgramWork(("true",)))
    running = Running(Batch(1, JobId("ab" * 16), spec, spec.tasks, 9, 1, "1.9.1"), 0.5)
    good = (0, 1, frames.OK, 5, chunks.pack([items.pack_value(b"x")]))
    odd = values.pack_blob((bytes(32), 7))[:-1]
    bad = (1, 2, frames.OK_WITH_BLOBS, 5, chunks.pack([items.pack_value(odd)]))
    with pytest.raises(ValueError, match="name of a blob"):
        running.accept([good, bad])
    assert running.left == spec.tasks
    whole, large = running.accept([good])
    assert (len(whole), large, running.left) == (1, [], TaskSet.of(1, 2))
