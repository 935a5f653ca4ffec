"""What the command line says before it talks to anybody: help, versions, wrong usage."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import typer

from p2psched.cli.app import run, wants_json
from p2psched.cli.commands import app_for
from p2psched.model.version import VERSION

ROOT: Final = Path(__file__).resolve().parents[2]
COMMANDS: Final = (
    "start",
    "submit-job",
    "jobs",
    "explain",
    "peers",
    "status",
    "stop",
    "demo",
    "backup",
    "restore",
    "job show",
    "job wait",
    "job results",
    "job export",
    "job logs",
    "job history",
    "job cancel",
    "job resolve",
    "job retry",
    "job rm",
    "job pin",
    "job unpin",
    "peer remove",
    "peer promote",
    "peer demote",
    "peer voters",
    "ledger verify",
    "ledger compact",
    "peer drain",
    "peer cordon",
    "peer uncordon",
    "ledger recover",
    "events tail",
    "events export",
    "webhook add",
    "webhook list",
    "webhook remove",
    "kv get",
    "kv put",
    "kv delete",
    "kv cas",
    "kv range",
    "kv watch",
    "kv txn",
    "lock acquire",
    "lock run",
    "lock list",
    "lock release",
    "queue put",
    "queue get",
    "queue ack",
    "queue nack",
    "queue list",
    "queue purge",
    "queue configure",
    "queue redrive",
    "queue delete",
    "spool list",
    "spool show",
    "spool rm",
    "reconcile show",
    "sim run",
    "sim replay",
    "sim shrink",
    "sim policy",
)
SILENT: Final = {
    *("start", "demo", "restore", "ledger verify", "ledger recover"),
    *("sim run", "sim replay", "sim shrink", "sim policy"),
}
TALKING: Final = tuple(name for name in COMMANDS if name not in SILENT)
OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No peer is known, whatever runs on this machine."""
    monkeypatch.setenv("P2PSCHED_RUNTIME_DIR", str(tmp_path / "runtime"))
    for name in ("P2PSCHED_PEER", "P2PSCHED_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(words)
    out, err = capsys.readouterr()
    return code, out, err


def help_of(capsys: pytest.CaptureFixture[str], command: str) -> str:
    code, out, err = said(capsys, *command.split(), "--help")
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("command", ["", "job", *COMMANDS])
def test_help_fits_the_terminal_and_eighty_columns(
    command: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_of(capsys, command).splitlines()
    # An environment variable's name can't be broken, so a narrow terminal may wrap that line.
    assert [line for line in lines if len(line) > min(80, max(columns, 62))] == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_help_of_every_command_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"  p2psched {command}" in help_of(capsys, command)


@pytest.mark.parametrize("command", TALKING)
def test_every_command_that_talks_takes_the_common_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, command)
    assert {"--output", "--peer", "--secret-file", "--patience"} <= set(OPTION.findall(text))


def test_the_page_of_the_command_line_names_the_options_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sections = (ROOT / "docs/cli.md").read_text().split("\n## ")
    common = {"--output", "--peer", "--secret-file", "--patience", "--help"}
    documented = {
        match[1]: set(OPTION.findall(section)) - common
        for section in sections
        if (match := re.match(r"`p2psched ([a-z -]+)`", section))
    }
    actual = {
        command: set(OPTION.findall(help_of(capsys, command).split("Options:")[1].split("Exam")[0]))
        - common
        for command in COMMANDS
    }
    assert {name: documented.get(name) for name in COMMANDS} == actual


@pytest.mark.parametrize("words", [(), ("job",), ("sim",)])
def test_a_group_alone_shows_its_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, err) == (0, "")
    assert "Commands:" in out


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--version")
    assert code == 0
    assert out.startswith(f"p2psched {VERSION} ")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("nope",), "No such command"),
        (("jobs", "--nope"), "No such option"),
        (("jbos",), "Did you mean 'jobs'? See `p2psched --help`"),
        (("jobs", "-o", "xml"), "'--output' / '-o': 'xml' is not one of 'table', 'json'"),
        (("kv", "put", "a", "-5"), "a value that begins with - comes behind --: see"),
        (("jobs", "--patience", "soon"), "--patience 'soon' is no duration"),
        (("job", "show"), "p2psched job show --help"),
        (("submit-job",), "p2psched submit-job --help"),
        (("submit-job", "--array", "9-1", "--", "true"), "range runs backwards"),
        (("submit-job", "--array", "0-1000000", "--", "true"), "1 to 1,000,000 tasks"),
        (("submit-job", "--timeout", "1x", "--", "true"), "write it like 90s, 1.5m, 2h"),
        (("submit-job", "--timeout", "0", "--", "true"), "more than nothing"),
        (("submit-job", "--env", "A", "--", "true"), "NAME=VALUE"),
        (("submit-job", "--env", "1A=2", "--", "true"), "no name of an environment variable"),
        (("submit-job", "--cwd", "here", "--", "true"), "give a whole path"),
        (("submit-job", "--send", "/nowhere", "--", "true"), "No such file"),
        (("submit-job", "--send", "/", "--", "true"), "it is no file"),
        (("submit-job", "--retries", "-1", "--", "true"), "retries are 0 to 100"),
        (("submit-job", "--cpus", "0", "--", "true"), "cpus are 1 to 1024"),
        (("submit-job", "--key", "", "--", "true"), "--key has 1 to"),
        (("submit-job", "--lock", "a", "--resource", "b:1", "--", "true"), "one of --lock and"),
        (("submit-job", "--lock", "", "--", "true"), "--lock: the name of a lock has 1 to 256"),
        (("submit-job", "--resource", "camera0", "--", "true"), "write it like camera0:1"),
        (("submit-job", "--resource", "a:0", "--", "true"), "the capacity of a lock is 1 to"),
        (("submit-job", "--queue", "q", "--", "true"), "say so with --ordered"),
        (("submit-job", "--ordered", "--", "true"), "name it with --queue NAME"),
        (("job", "logs", "last", "-f", "-o", "quiet"), "leave --output away"),
        (("start", "--slots", "-1", "--data", "/nowhere"), "slots are 0 to 1024"),
        (("start", "--name", "a/b"), "pass --data"),
        (("start", "--log-level", "loud", "--data", "/nowhere"), "choose one of debug"),
        (("start", "--listen", ":7420", "--data", "/nowhere"), "names no host"),
        (("peers", "--peer", "1:2:3"), "is not a host"),
        (("events", "export", "--out", "/dev/null", "--force"), "/dev/null is no plain file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    words: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert part in err


def test_an_error_quotes_no_more_of_a_long_word_than_fits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = said(capsys, "submit-job", "--env", "A" * 100_000, "--", "true")
    assert code == 2
    assert len(err) < 2_000
    assert err.endswith("write it like NAME=VALUE\n")


@pytest.mark.parametrize("words", [(), ("job",), ("peer",)])
def test_a_list_of_commands_cuts_no_sentence(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = said(capsys, *words)
    listed = out.split("Commands:")[1].split("Exit codes:")[0].strip()
    assert "..." not in listed
    sentences = re.split(r"\n  (?=[a-z])", listed)
    assert [text for text in sentences if not text.endswith(".")] == []


@pytest.mark.parametrize(
    ("closed", "words", "code", "error"),
    [
        (">&-", ("--version",), 74, "can't write the output: Bad file descriptor"),
        (">&-", ("jobs", "--help"), 74, "can't write the output: Bad file descriptor"),
        ("<&-", ("kv", "put", "a", "-"), 2, "can't read -: Bad file descriptor"),
        ("<&-", ("queue", "put", "a", "-"), 2, "can't read stdin as text: [Errno 9] Bad file"),
        ("<&-", ("submit-job", "--inputs", "-", "--", "cat"), 2, "stdin is closed"),
    ],
)
def test_a_stream_that_is_closed_is_told_like_any_other_mistake(
    closed: str, words: tuple[str, ...], code: int, error: str
) -> None:
    line = ("sh", "-c", f'exec "$0" -m p2psched "$@" {closed}', sys.executable, *words)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert error in done.stderr


def test_who_reads_no_more_of_the_help_hears_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        line = (sys.executable, "-m", "p2psched", "submit-job", "--help")
        done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["jobs", "peers", "status", "stop"])
def test_without_any_peer_the_error_says_how_to_get_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, command)
    assert (code, out) == (3, "")
    assert err.startswith("error: no peer runs on this machine")
    assert "--peer" in err


def test_an_address_without_a_secret_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "jobs", "--peer", "127.0.0.1:1")
    assert code == 5
    assert "--secret-file" in err


def test_nobody_at_an_address_is_unavailable_after_the_patience(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("ab" * 32)
    secret.chmod(0o600)
    options = ("--peer", "127.0.0.1:1", "--secret-file", str(secret), "--patience", "300ms")
    code, _, err = said(capsys, "jobs", *options)
    assert code == 3
    assert err.startswith("error: nobody answers at 127.0.0.1:1")


@pytest.mark.parametrize("words", [("jobs", "-o", "json"), ("jobs", "--nope", "--output=json")])
def test_errors_are_json_where_json_is_asked_for(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    found = json.loads(err)
    assert out == ""
    assert found["version"] == 1
    assert found["error"]["exit_code"] == code
    assert found["error"]["code"] in {"usage", "unavailable"}


def test_json_that_a_task_is_told_is_not_ours() -> None:
    assert not wants_json(["submit-job", "--", "jq", "-o", "json"])
    assert wants_json(["submit-job", "-o", "json", "--", "true"])


def test_commands_and_tests_name_the_same_set() -> None:
    group = typer.main.get_command(app_for(()))
    found = set()
    for name, command in getattr(group, "commands").items():  # noqa: B009 (typer's own class)
        inner = getattr(command, "commands", None)
        found |= {name} if inner is None else {f"{name} {sub}" for sub in inner}
    assert found == set(COMMANDS)
