"""Tables that fit, texts that can't write to a terminal, lengths of time and of data."""

from __future__ import annotations

import pytest

from p2psched.cli.describe import reason, short_ids
from p2psched.cli.follow import prefixed
from p2psched.cli.options import duration
from p2psched.cli.output import Column, clean, moment, size, span, table
from p2psched.cli.submit import job_of_key
from p2psched.cli.tasks import TaskEnd, open_item, split_task
from p2psched.model import items
from p2psched.model.errors import ProtocolError, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import Cause

COLUMNS = (
    Column(title="id"),
    Column(title="name", shrink_to=6),
    Column(title="age", right=True, drop=1),
    Column(title="command", shrink_to=10, drop=2),
)
ROWS = [("1a2b3c4d", "a-long-name", "3 s", "python3 train.py --all"), ("5e", "b", "12 min", "ls")]


def test_a_table_in_a_pipe_is_not_cut() -> None:
    assert table(COLUMNS, ROWS, width=None) == [
        "ID        NAME            AGE  COMMAND",
        "1a2b3c4d  a-long-name     3 s  python3 train.py --all",
        "5e        b            12 min  ls",
    ]


def test_a_table_gives_up_the_end_of_its_last_column_first() -> None:
    assert table(COLUMNS, ROWS, width=44) == [
        "ID        NAME            AGE  COMMAND",
        "1a2b3c4d  a-long-name     3 s  python3 trai…",
        "5e        b            12 min  ls",
    ]


def test_a_table_drops_columns_that_no_longer_fit() -> None:
    assert table(COLUMNS, ROWS, width=28) == [
        "ID        NAME           AGE",
        "1a2b3c4d  a-long-na…     3 s",
        "5e        b           12 min",
    ]
    assert table(COLUMNS, ROWS, width=16)[0] == "ID        NAME"


def test_wide_characters_take_two_columns() -> None:
    assert table(COLUMNS[:2], [("調度", "x")], width=None)[1] == "調度  x"


def test_states_are_painted_only_where_colors_are_wanted() -> None:
    rows = [("failed", "a job")]
    painted = table(COLUMNS[:2], rows, width=None, color=True)
    assert painted[1] == "\x1b[31mfailed\x1b[0m  a job"
    assert "\x1b" not in table(COLUMNS[:2], rows, width=None)[1]


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\r", "\x9b31m", "\u202e"])
def test_control_characters_reach_no_terminal(text: str) -> None:
    assert clean(text).isprintable()
    assert all(line.isprintable() for line in table(COLUMNS[:1], [(text,)], width=None))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5), ("1 d", 86_400)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert duration(text, "--timeout") == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1e9", "nan", "5 weeks", "9" * 40, "4000d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        duration(text, "--timeout")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (3.21, "3.2 s"), (75, "75 s"), (600, "10 min"), (7300, "2 h"), (2e5, "2 d")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_sizes_and_moments() -> None:
    assert [size(12), size(2048), size(3 * 2**30)] == ["12 B", "2.0 KiB", "3.0 GiB"]
    assert moment(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert moment(None) is None


def test_short_ids_grow_until_they_differ() -> None:
    jobs = [JobId("0" * 32), JobId("0" * 9 + "1" * 23)]
    assert list(short_ids(jobs).values()) == ["0" * 10, "0" * 9 + "1"]
    assert list(short_ids(jobs[:1]).values()) == ["0" * 8]


def test_a_task_is_named_by_its_job_and_its_index() -> None:
    assert split_task("1a2b/17") == ("1a2b", 17)
    assert split_task("1a2b") == ("1a2b", None)
    assert split_task("a/b") == ("a/b", None)
    assert split_task("/3") == ("/3", None)


def test_lines_of_an_array_begin_with_the_index() -> None:
    assert prefixed(b"a\nb\n", 3) == b"[3] a\n[3] b\n"
    assert prefixed(b"no end", 3) == b"[3] no end\n"


def test_one_key_is_one_job() -> None:
    assert job_of_key("k") == job_of_key("k") != job_of_key("l")
    assert len(job_of_key("k")) == 32


@pytest.mark.parametrize(
    ("cause", "header", "text"),
    [
        (Cause.EXIT, {"exit": 7}, "exit code 7"),
        (Cause.SIGNAL, {"signal": 9}, "signal 9 (SIGKILL)"),
        (Cause.SIGNAL, {"signal": 99}, "signal 99 (unknown)"),
        (Cause.TIMEOUT, {"signal": 15, "message": "too long"}, "timeout: too long"),
        (Cause.EXCEPTION, {"type": "ValueError", "message": "no\n2"}, "ValueError: no 2"),
        (Cause.EXCEPTION, {"type": "KeyError"}, "KeyError"),
        (Cause.PEER_LOST, {}, "peer-lost"),
    ],
)
def test_reasons_are_words(cause: Cause, header: items.Header, text: str) -> None:
    assert reason(cause, header) == text


# --- output with a gap ----------------------------------------------------------------------------

WRITTEN = b"0123456789"


def _with_gap() -> TaskEnd:
    """Of ten bytes the first three and the last four are kept."""
    header: items.Header = {"stdout_total": 10, "stdout_head": 3}
    item = items.pack(header, stdout=b"0126789")
    return open_item(JobId("0" * 32), 0, "ok", item)


@pytest.mark.parametrize(
    ("offset", "shown"),
    [
        (0, b"012\n[... 3 bytes dropped ...]\n6789"),
        (2, b"2\n[... 3 bytes dropped ...]\n6789"),
        (3, b"[... 3 bytes dropped ...]\n6789"),
        (5, b"[... 1 bytes dropped ...]\n6789"),
        (6, b"6789"),
        (9, b"9"),
        (10, b""),
    ],
)
def test_the_rest_of_an_output_repeats_nothing_and_names_its_gap(offset: int, shown: bytes) -> None:
    assert _with_gap().rest("stdout", offset) == shown


def test_the_rest_of_a_whole_output_is_its_end() -> None:
    item = items.pack({"stdout_total": 10}, stdout=WRITTEN)
    task = open_item(JobId("0" * 32), 0, "ok", item)
    assert task.rest("stdout", 4) == b"456789"
    assert task.rest("stderr") == b""


def test_an_item_that_is_none_says_whose_it_was() -> None:
    with pytest.raises(ProtocolError, match="00000000/7"):
        open_item(JobId("0" * 32), 7, "ok", b"x")
