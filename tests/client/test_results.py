"""Results as the caller sees them: values, exceptions with their traceback, other ends."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from p2psched.client.downloads import IN_MEMORY_BYTES_MAX, Downloads
from p2psched.client.results import RemoteTraceback, TaskResult, results_of
from p2psched.model import chunks, items, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import ResultLost, TaskFailed, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, Segment
from p2psched.run.host.exchange import Exchange
from p2psched.run.host.files import File
from p2psched.run.host.frames import NOT_SERIALISABLE, OK, TOO_LARGE
from p2psched.run.host.functions import call
from p2psched.run.host.large import BlobFolder, Spill

JOB = JobId("ab" * 16)
HERE = Exchange(blobs=BlobFolder(""), spill=None, scratch="/")


class Odd(Exception):
    """Can't be opened: its constructor wants more than it pickles."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def test_a_segment_gives_one_result_for_each_task() -> None:
    data = chunks.pack([items.pack_value(pickle.dumps(n * n)) for n in (5, 6, 7)])
    results = list(results_of(JOB, Segment(5, 8, Cause.OK, data)))
    assert [(r.index, r.value, r.error) for r in results] == [
        (5, 25, None),
        (6, 36, None),
        (7, 49, None),
    ]


def test_value_raises_what_the_task_raised_with_the_traceback_as_its_cause() -> None:
    header: items.Header = {"type": "KeyError", "message": "'x'", "traceback": "  in user code\n"}
    item = items.pack(header, pickle.dumps(KeyError("x")))
    result = TaskResult(JOB, 0, Cause.EXCEPTION, item)
    with pytest.raises(KeyError) as caught:
        _ = result.value
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in user code" in str(caught.value.__cause__)


VALUES: list[object] = [None, True, 0, -5, 2**63, 2**70, 1.5, "text", "\ud800", b"", b"\x80\x05"]
VALUES += [[], {}, (1, 2), {1}, [1, ["a", {"b": None}]], {"a": {"b": [1.0]}}, {1: 2}, [(1,)]]
VALUES += [[2**64], "x" * 5000]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was_returned(value: object) -> None:
    cause, header, data = call(lambda: value, pickle.dumps(((), {})), HERE)
    assert (cause, header) == (OK, {})
    result = TaskResult(JOB, 0, Cause.OK, items.pack_value(data))
    assert result.value == value
    assert type(result.value) is type(value)


def test_plain_data_opens_without_running_code() -> None:
    def plain(value: object) -> bool:
        _, _, data = call(lambda: value, pickle.dumps(((), {})), HERE)
        return TaskResult(JOB, 0, Cause.OK, items.pack_value(data)).is_plain

    assert plain({"loss": 0.5, "epochs": [1, 2]})
    assert not plain((1, 2))
    assert not plain(Odd)


def test_an_exception_that_cannot_be_opened_is_told_in_words() -> None:
    header: items.Header = {"type": "Odd", "message": "1", "traceback": "line 3"}
    result = TaskResult(JOB, 4, Cause.EXCEPTION, items.pack(header, pickle.dumps(Odd(1, 2))))
    error = result.error
    assert isinstance(error, TaskFailed)
    assert str(error) == "task abababab/4 ended by exception: Odd: 1"
    assert "line 3" in str(error.__cause__)


def test_a_program_that_failed_tells_its_exit_code_and_last_words() -> None:
    item = items.pack({"exit": 3}, stderr=b"first\nno such table\n")
    error = TaskResult(JOB, 0, Cause.EXIT, item).error
    assert str(error) == "task abababab/0 ended by exit, exit code 3: no such table"


def test_a_program_that_succeeded_has_output_and_no_value() -> None:
    result = TaskResult(JOB, 0, Cause.OK, items.pack({"exit": 0}, stdout=b"42\n"))
    assert (result.value, result.stdout, result.header["exit"]) == (None, b"42\n", 0)


# --- what is large --------------------------------------------------------------------------------


class Peers:
    """Downloads from the spill folder of a worker, and counts them."""

    def __init__(self, folder: Path) -> None:
        self._spill = folder / "spill"
        self._spill.mkdir()
        self.exchange = Exchange(
            blobs=BlobFolder(""), spill=Spill(str(folder), "w"), scratch=str(folder)
        )
        self.downloaded: list[int] = []
        self.downloads = Downloads(self._download, self._fetch)

    def result(self, function: Callable[[], object]) -> TaskResult:
        """What a caller has of a task, before anything is downloaded."""
        cause, header, value = call(function, pickle.dumps(((), {})), self.exchange)
        assert (cause, header) == (OK, {})
        return TaskResult(JOB, 0, Cause.OK, items.pack_value(value))

    def complete(self, result: TaskResult) -> TaskResult:
        return asyncio.run(self.downloads.complete(result))

    async def _download(self, ref: BlobRef, sink: BinaryIO) -> None:
        self.downloaded.append(ref.size)
        sink.write((self._spill / str(ref)).read_bytes())

    def _fetch(self, ref: values.Ref, path: str) -> None:
        self.downloaded.append(ref[1])
        Path(path).write_bytes((self._spill / ref[0].hex()).read_bytes())


@pytest.mark.parametrize("size", [1_000, 20_000, IN_MEMORY_BYTES_MAX])
def test_an_array_comes_back_writable_and_each_look_at_it_is_a_new_one(
    tmp_path: Path, size: int
) -> None:
    peers = Peers(tmp_path)
    result = peers.complete(peers.result(lambda: (np.ones(size), "beside")))
    first, second = (result.value for _ in range(2))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert (first[1], first[0].shape) == ("beside", (size,))
    array = first[0]
    array += 1
    assert (first[0].sum(), second[0].sum()) == (2 * size, size)


def test_a_large_value_is_downloaded_once_and_not_before_it_is_wanted(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    result = peers.result(lambda: "x" * 100_000)
    assert result.has_blobs
    assert result.size > 100_000
    with pytest.raises(ValueError, match="no blobs here"):
        _ = result.value
    assert peers.downloaded == []
    complete = peers.complete(result)
    assert (complete.value, complete.value) == ("x" * 100_000, "x" * 100_000)
    assert len(peers.downloaded) == 1
    assert complete.is_plain


def test_a_small_result_needs_no_download(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    result = peers.result(lambda: [1, 2])
    assert peers.complete(result) is result


def test_files_stay_with_the_peers_until_they_are_saved(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    result = peers.complete(peers.result(lambda: {"log": File(tmp_path / "a.txt")}))
    value = result.value
    assert isinstance(value, dict)
    file = value["log"]
    assert (file.name, file.size, peers.downloaded) == ("a.txt", 5, [])
    with pytest.raises(FileNotFoundError, match="save"):
        _ = file.path
    file.save(tmp_path / "here")
    assert (tmp_path / "here").read_text() == "hello"
    with file.open() as opened:
        assert opened.read() == b"hello"
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_value_whose_blob_is_not_here_says_so(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    result = peers.complete(peers.result(lambda: {"log": File(__file__)}))
    other = peers.result(lambda: bytes(70_000))
    assert result._source is not None
    with pytest.raises(ResultLost, match="was not brought here"):
        _ = other.with_source(result._source).value


def test_a_value_that_ends_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    value = [bytes(3_000_000), itertools.count(), (n for n in range(3))]
    cause, header, _ = call(lambda: value, pickle.dumps(((), {})), peers.exchange)
    assert cause == NOT_SERIALISABLE
    assert "generator" in str(header["message"])
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_value_over_the_limit_of_a_blob_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psched.model.limits.BLOB_BYTES_MAX", 100_000)
    peers = Peers(tmp_path)
    for value in (bytes(200_000), (bytes(2_000_000), 1), np.zeros(20_000)):
        cause, header, _ = call(lambda v=value: v, pickle.dumps(((), {})), peers.exchange)
        assert cause == TOO_LARGE
        assert "the result is too large: a blob may take" in str(header["message"])
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_pickle_of_another_python_that_cannot_be_opened_says_which() -> None:
    item = items.pack({"python": "3.99"}, b"\x80\x05garbage")
    with pytest.raises(UsageError, match=r"ran on Python 3\.99"):
        _ = TaskResult(JOB, 0, Cause.OK, item).value
