"""A job that breaks a bound cannot exist, and the message names the bound."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import chunks, limits
from p2psched.model.job import (
    Cause,
    FunctionWork,
    JobSpec,
    ProgramWork,
    Segment,
    SentFile,
    Work,
    argument_size,
)
from p2psched.model.taskset import EMPTY, TaskSet

ECHO = ProgramWork(argv=("echo", "hello"))


def _function(*chunk_bytes: bytes, chunk_tasks: int = 2, code: bytes = b"") -> FunctionWork:
    return FunctionWork(
        path="" if code else "math:sqrt",
        code=code,
        chunks=chunk_bytes,
        chunk_tasks=chunk_tasks,
        python="3.11",
    )


def _spec(
    *,
    name: str = "job",
    tasks: TaskSet = TaskSet.of(0, 3),  # noqa: B008 - frozen
    work: Work = ECHO,
    retries: int = 0,
    timeout_ms: int | None = None,
    cpus: int = 1,
) -> JobSpec:
    return JobSpec(
        name=name, tasks=tasks, work=work, retries=retries, timeout_ms=timeout_ms, cpus=cpus
    )


def test_every_bound_itself_is_allowed() -> None:
    spec = _spec(
        name="n" * limits.JOB_NAME_LEN_MAX,
        tasks=TaskSet.of(0, limits.JOB_TASKS_MAX),
        work=ProgramWork(argv=("x" * limits.JOB_ARGUMENT_BYTES_MAX,)),
        retries=limits.RETRIES_MAX,
        timeout_ms=1,
        cpus=limits.SLOTS_MAX,
    )
    assert len(spec.tasks) == 1_000_000
    assert _spec(name="", tasks=TaskSet.of(7, 8)).cpus == 1


NUMBERS = {
    "retries": (0, limits.RETRIES_MAX),
    "cpus": (1, limits.SLOTS_MAX),
    "copies": (1, limits.COPIES_MAX),
    "keep_ms": (0, limits.KEEP_MS_MAX),
    "timeout_ms": (1, 2**63 - 1),
}


def _about(low: int, high: int) -> st.SearchStrategy[int]:
    return st.sampled_from([low, high]).flatmap(lambda edge: st.integers(edge - 1, edge + 1))


@given(st.fixed_dictionaries({}, optional={name: _about(*NUMBERS[name]) for name in NUMBERS}))
def test_numbers_are_taken_if_each_is_within_its_bounds(numbers: dict[str, int]) -> None:
    def make() -> JobSpec:
        return msgspec.convert(["job", [[[0, 3]]], [1, ["true"]]], JobSpec)

    plain = msgspec.structs.asdict(make())
    is_right = all(
        low <= numbers.get(name, low) and (name == "timeout_ms" or numbers.get(name, low) <= high)
        for name, (low, high) in NUMBERS.items()
    )
    try:
        made = JobSpec(**{**plain, **numbers})
    except ValueError:
        assert not is_right
    else:
        assert is_right
        assert msgspec.structs.asdict(made) == {**plain, **numbers}


_LARGE = b"x" * (limits.JOB_ARGUMENT_BYTES_MAX - 7)


@pytest.mark.parametrize(
    ("changed", "is_right"),
    [
        ({}, True),
        ({"retries": limits.RETRIES_MAX + 1}, False),
        ({"retries": -1}, False),
        ({"cpus": 2}, True),
        ({"cpus": 0}, False),
        ({"copies": 0}, False),
        ({"copies": limits.COPIES_MAX + 1}, False),
        ({"timeout_ms": 0}, False),
        ({"keep_ms": -1}, False),
        ({"name": "n" * limits.JOB_NAME_LEN_MAX}, True),
        ({"name": "n" * (limits.JOB_NAME_LEN_MAX + 1)}, False),
        ({"name": "a/b"}, False),
        ({"name": "a\n"}, False),
        ({"submitter": "u" * (limits.SUBMITTER_LEN_MAX + 1)}, False),
        ({"work": _function(b"7 bytes")}, True),
        ({"work": _function(b"7 bytes", code=_LARGE)}, True),
        ({"work": _function(b"8 bytes!", code=_LARGE)}, False),
        ({"work": _function(_LARGE, code=b"8 bytes!")}, False),
        ({"work": _function(b"", chunk_tasks=0)}, False),
        ({"work": _function(b"", b"")}, False),
        ({"work": _function()}, False),
    ],
)
def test_the_bounds_of_a_single_call_are_those_of_all(
    changed: dict[str, object], is_right: bool
) -> None:
    fields = {"name": "", "tasks": TaskSet.of(0, 1), "work": _function(b"7 bytes"), **changed}
    if is_right:
        assert msgspec.structs.asdict(JobSpec(**fields))["work"] == fields["work"]  # type: ignore[arg-type]  # drawn by name
        return
    with pytest.raises(ValueError, match=r"are|has|may|must|needs"):
        JobSpec(**fields)  # type: ignore[arg-type]  # drawn by name


@pytest.mark.parametrize("name", ["retries", "cpus", "copies"])
def test_a_truth_is_no_number(name: str) -> None:
    plain = msgspec.structs.asdict(_spec())
    with pytest.raises(ValueError, match="are"):
        JobSpec(**{**plain, name: True})


def test_no_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 1,000,000 tasks, not 0"):
        _spec(tasks=EMPTY)


def test_a_task_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 1,000,000 tasks, not 1,000,001"):
        _spec(tasks=TaskSet.of(0, limits.JOB_TASKS_MAX + 1))


@pytest.mark.parametrize("name", ["n" * 129, "two\nlines", "\x1b[31m", "\0"])
def test_a_name_that_would_spoil_a_screen_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="up to 128 printable characters"):
        _spec(name=name)


@pytest.mark.parametrize("retries", [-1, 101])
def test_retries_out_of_bounds_are_refused(retries: int) -> None:
    with pytest.raises(ValueError, match=f"retries are 0 to 100, not {retries}"):
        _spec(retries=retries)


@pytest.mark.parametrize("cpus", [0, 1025])
def test_cpus_out_of_bounds_are_refused(cpus: int) -> None:
    with pytest.raises(ValueError, match=f"cpus are 1 to 1024, not {cpus}"):
        _spec(cpus=cpus)


@pytest.mark.parametrize("timeout_ms", [0, -5])
def test_a_timeout_of_nothing_is_refused(timeout_ms: int) -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        _spec(timeout_ms=timeout_ms)


def test_a_program_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="a program needs a name"):
        _spec(work=ProgramWork(argv=()))


@pytest.mark.parametrize(
    "work",
    [
        ProgramWork(argv=("x" * (limits.JOB_ARGUMENT_BYTES_MAX + 1),)),
        ProgramWork(argv=("x",), env=(("y", "z" * 600_000),)),
        ProgramWork(argv=("x",), files=(SentFile("f", 0o644, bytes(600_000)),)),
        _function(bytes(300_000), bytes(300_000)),
        _function(b"", b"", code=bytes(600_000)),
    ],
    ids=["words", "environment", "files", "arguments", "code"],
)
def test_too_many_bytes_are_refused_with_both_sizes(work: Work) -> None:
    with pytest.raises(ValueError, match=r"may take 512 KiB, these take [5-9]\d\d KiB: split"):
        _spec(work=work)


def test_the_size_of_words_is_counted_in_bytes_not_characters() -> None:
    assert argument_size(ProgramWork(argv=("ä", "b"), env=(("k", "€"),))) == 7
    assert argument_size(_function(b"12", b"3", code=b"45")) == 5


@pytest.mark.parametrize(
    ("tasks", "work"),
    [
        (TaskSet.of(0, 3), _function(b"")),
        (TaskSet.of(0, 3), _function(b"", b"", b"")),
        (TaskSet.of(0, 3), _function()),
        (TaskSet.of(0, 3), _function(b"", b"", chunk_tasks=0)),
        (TaskSet.of(0, 3), _function(b"", b"", chunk_tasks=-2)),
        (TaskSet.of(1, 4), _function(b"", b"")),
        (TaskSet.parse("0,2,3"), _function(b"", b"")),
    ],
)
def test_a_function_job_without_the_arguments_of_each_task_is_refused(
    tasks: TaskSet, work: FunctionWork
) -> None:
    with pytest.raises(ValueError, match="arguments of each of its tasks"):
        _spec(tasks=tasks, work=work)


@given(st.integers(1, 40), st.integers(1, 50))
def test_a_function_job_may_cut_its_arguments_anywhere(tasks: int, chunk_tasks: int) -> None:
    sizes = [min(chunk_tasks, tasks - start) for start in range(0, tasks, chunk_tasks)]
    packed = (chunks.pack([b"argument"] * size) for size in sizes)
    spec = _spec(tasks=TaskSet.of(0, tasks), work=_function(*packed, chunk_tasks=chunk_tasks))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=JobSpec) == spec


def test_a_bound_is_checked_on_what_arrives_too() -> None:
    good = msgspec.msgpack.decode(msgspec.msgpack.encode(_spec()))
    good[3] = 101  # retries
    with pytest.raises(msgspec.ValidationError, match="retries are 0 to 100, not 101"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(good), type=JobSpec)


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 2), (3, 2)])
def test_a_segment_without_tasks_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"not a range of tasks: {start} to {stop}"):
        Segment(start, stop, Cause.OK, b"")


def test_a_segment_names_its_tasks() -> None:
    assert Segment(3, 6, Cause.OK, b"").tasks == TaskSet.of(3, 6)


@pytest.mark.parametrize("busy_us", [-1, 2**53 + 1, 2**64 - 1])
def test_a_segment_with_an_impossible_duration_is_refused_at_the_door(busy_us: int) -> None:
    """Users' code shares its process with the worker that reports: no store may choke on it."""
    with pytest.raises(ValueError, match="not a duration"):
        Segment(0, 1, Cause.OK, b"", busy_us)


def test_a_segment_with_a_damaged_chunk_is_found_before_it_is_cut() -> None:
    sound = chunks.pack([b"ab", b"cd"])
    damaged = sound[:8] + (9).to_bytes(4, "little") + sound[12:]
    Segment(0, 2, Cause.OK, sound).check()
    with pytest.raises(ValueError, match="not a chunk"):
        Segment(0, 2, Cause.OK, damaged).check()
    with pytest.raises(ValueError, match="2 results"):
        Segment(0, 3, Cause.OK, sound).check()


def test_a_large_segment_splits_into_pieces_that_hold_the_same_results() -> None:
    values = [bytes([n]) * 60_000 for n in range(20)]
    pieces = Segment(5, 25, Cause.OK, chunks.pack(values), 2000).split()
    assert max(len(piece.data) for piece in pieces) <= limits.SEGMENT_BYTES_MAX
    assert [v for piece in pieces for v in chunks.unpack(piece.data)] == values
    assert [(p.start, q.stop) for p, q in zip(pieces[:1], pieces[-1:], strict=True)] == [(5, 25)]
