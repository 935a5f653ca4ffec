"""Lines of the log: readable by people and machines, free of secrets, impossible to forge."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from p2psched.model.errors import UsageError
from p2psched.observe import logs

WHEN = 1767268800.25  # 2026-01-01T12:00:00.250Z


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def log_line(
    event: str, *, json: bool = False, name: str = "p2psched.peer", **fields: object
) -> str:
    """What one call to a logger puts out."""
    stream = io.StringIO()
    logs.setup("debug", stream, json=json)
    record = logging.getLogger(name).makeRecord(
        name, logging.INFO, "file.py", 1, event, (), None, extra=fields
    )
    record.created = WHEN
    logging.getLogger(name).handle(record)
    return stream.getvalue()


def test_a_line_has_time_level_event_and_fields_in_the_order_given() -> None:
    line = log_line("grant-committed", job="ab12", grant=7, late=None, share=0.5)
    assert line == (
        "2026-01-01T12:00:00.250Z INFO grant-committed job=ab12 grant=7 late=None share=0.5\n"
    )


def test_a_line_of_json_holds_the_same() -> None:
    line = log_line("grant-committed", json=True, job="ab12", grant=7)
    assert json.loads(line) == {
        "time": "2026-01-01T12:00:00.250Z",
        "level": "INFO",
        "event": "grant-committed",
        "job": "ab12",
        "grant": 7,
    }


def test_fields_of_json_never_replace_what_the_line_is_about() -> None:
    line = json.loads(log_line("x", json=True, level="fake", time="never"))
    assert (line["level"], line["level_"], line["time_"]) == ("INFO", "fake", "never")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("two words", '"two words"'),
        ("", '""'),
        ('a"b', r'"a\"b"'),
        ("k=v", '"k=v"'),
        ("one\n2026-01-01T12:00:00Z INFO forged", r'"one\n2026-01-01T12:00:00Z INFO forged"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("\u202egnp.exe", r'"\u202egnp.exe"'),
        ("line\u2028separator\x85", r'"line\u2028separator\u0085"'),
    ],
)
def test_a_value_stays_one_word_on_its_line(value: str, shown: str) -> None:
    assert log_line("x", field=value) == f"2026-01-01T12:00:00.250Z INFO x field={shown}\n"


def test_a_message_with_a_line_break_stays_one_line() -> None:
    assert log_line("one\ntwo").count("\n") == 1


def test_a_long_value_is_cut() -> None:
    line = log_line("x", field="y" * 100_000)
    assert len(line) < logs.VALUE_LEN_MAX + 100
    assert "[cut]" in line


@pytest.mark.parametrize("json", [True, False])
def test_secrets_and_bytes_are_never_shown(*, json: bool) -> None:
    line = log_line(
        "x",
        json=json,
        secret="deadbeef",
        cluster_secret="deadbeef",
        token=b"deadbeef",
        data=b"beef",
    )
    assert "beef" not in line
    assert line.count("[hidden]") == 3
    assert "<4 bytes>" in line


def test_a_foreign_logger_is_named() -> None:
    assert log_line("hello", name="asyncio") == (
        "2026-01-01T12:00:00.250Z INFO hello logger=asyncio\n"
    )


def failing_log(*, json: bool) -> str:
    stream = io.StringIO()
    logs.setup("info", stream, json=json)
    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("p2psched").exception("it-failed")
    return stream.getvalue()


def test_an_exception_is_a_field_with_its_traceback_indented_below() -> None:
    first, *below = failing_log(json=False).splitlines()
    assert first.endswith('ERROR it-failed error="ValueError: no such thing"')
    assert below[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in below)


def test_an_exception_in_json_is_one_line() -> None:
    line = json.loads(failing_log(json=True))
    assert line["error"] == "ValueError: no such thing"
    assert line["traceback"].startswith("Traceback")


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    logs.setup("warning", stream, json=False)
    logging.getLogger("p2psched").info("quiet")
    logging.getLogger("p2psched").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_setting_up_again_replaces_the_first_stream() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.setup("info", first, json=False)
    logs.setup("info", second, json=False)
    logging.getLogger("p2psched").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_an_unknown_level_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="debug, info, warning, error"):
        logs.setup("loud", io.StringIO(), json=False)


class _BrokenStream(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_stream_that_is_gone_does_not_stop_the_peer(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", _BrokenStream(), json=False)
    logging.getLogger("p2psched").info("into-the-void")
    assert capsys.readouterr().err == ""
