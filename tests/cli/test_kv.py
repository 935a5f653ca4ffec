"""`p2psched kv`: what people type, and what scripts read."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from p2psched.cli.kv_txn import made, parsed, plain
from p2psched.client import keys
from p2psched.model.errors import UsageError
from tests.cluster import COMMAND, LiveCluster

Fields = dict[str, Any]  # as JSON has it

pytestmark = pytest.mark.process


def said(cluster: LiveCluster, *words: str) -> Fields:
    found: Fields = json.loads(cluster.ok("kv", *words, "-o", "json"))
    return found


def fed(cluster: LiveCluster, data: bytes, *words: str) -> bytes:
    """With something on stdin."""
    done = subprocess.run(
        [*COMMAND, "kv", *words], input=data, env=cluster.env, capture_output=True, check=True
    )
    return done.stdout


@pytest.mark.smoke
def test_a_value_is_put_read_changed_listed_and_deleted(live: LiveCluster) -> None:
    version = said(live, "put", "a/color", "green")["key_version"]
    assert live.ok("kv", "get", "a/color") == "green\n"
    assert said(live, "get", "a/color")["entry"] == {
        "key": "a/color",
        "value": "green",
        "version": version,
        "created": version,
        "lease": None,
    }
    live.ok("kv", "cas", "a/color", str(version), '{"red": 1}', "--parse")
    assert live.ok("kv", "get", "a/color") == '{"red": 1}\n'
    done = live.run("kv", "cas", "a/color", str(version), "blue")
    assert done.returncode == 1
    assert "was expected" in done.stderr
    live.ok("kv", "cas", "a/new", "0", "1")
    assert live.ok("kv", "range", "a/", "-o", "quiet") == "a/color\na/new\n"
    assert said(live, "range", "a/", "--limit", "1")["more"] is True
    assert live.ok("kv", "range", "a/", "--after", "a/color", "-o", "quiet") == "a/new\n"
    assert said(live, "delete", "a/new")["was_there"] is True
    assert said(live, "delete", "a/new")["was_there"] is False
    done = live.run("kv", "get", "a/new")
    assert (done.returncode, "kv range" in done.stderr) == (2, True)


def test_bytes_come_back_as_they_were(live: LiveCluster) -> None:
    data = bytes(range(256))
    fed(live, data, "put", "bytes", "-")
    assert fed(live, b"", "get", "bytes") == data
    assert made(said(live, "get", "bytes")["entry"]["value"]) == data
    fed(live, b"text\n", "put", "text", "-")
    assert said(live, "get", "text")["entry"]["value"] == "text\n"


def test_a_transaction_from_stdin_and_a_watch_of_what_it_did(live: LiveCluster) -> None:
    before = said(live, "range", "t/")["range_version"]
    text = json.dumps(
        {
            "compare": [{"key": "t/a", "version": 0}],
            "then": [{"put": "t/a", "value": [1]}, {"put": "t/b", "value": None}],
            "otherwise": [{"get": "t/a"}, {"delete": "t/b"}],
        }
    ).encode()
    first = json.loads(fed(live, text, "txn", "-o", "json"))
    second = json.loads(fed(live, text, "txn", "-o", "json"))
    assert (first["held"], second["held"]) == (True, False)
    assert second["results"][0]["value"] == [1]
    assert second["results"][1] is True
    lines = live.ok(
        *("kv", "watch", "t/", "--from-version", str(before), "--limit", "3", "-o", "json")
    ).splitlines()
    changes = [json.loads(line)["change"] for line in lines]
    assert [(c["key"], c["deleted"]) for c in changes] == [
        ("t/a", False),
        ("t/b", False),
        ("t/b", True),
    ]
    assert [c["version"] for c in changes] == [first["txn_version"]] * 2 + [second["txn_version"]]


def test_a_key_with_a_time_hangs_on_a_lease(live: LiveCluster) -> None:
    version = said(live, "put", "short", "yes", "--ttl", "1s")["key_version"]
    assert said(live, "get", "short", "--stale")["entry"]["lease"]
    lines = live.ok(
        *("kv", "watch", "short", "--from-version", str(version), "--limit", "1", "-o", "json")
    )
    assert json.loads(lines)["change"]["deleted"] is True


def test_what_can_not_be_is_said(live: LiveCluster) -> None:
    for words, text in (
        (("put", "k", "{", "--parse"), "no JSON"),
        (("put", "", "v"), "1 to 1024 bytes"),
        (("put", "k", "v", "--ttl", "1ms"), "1 s to 24 h"),
        (("txn", "/nowhere"), "can't read"),
        (("cas", "k", "-1", "v"), "see `p2psched kv cas --help`"),
    ):
        done = live.run("kv", *words)
        assert done.returncode == 2, words
        assert text in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"if": []}',
        '{"then": {}}',
        '{"then": [{"put": "a"}]}',
        '{"then": [{"put": 1, "value": 1}]}',
        '{"then": ["get"]}',
        '{"compare": [{"key": "a"}]}',
        '{"compare": [{"key": "a", "version": "1"}]}',
        '{"then": [{"put": "a", "value": {"base64": "%"}}]}',
    ],
)
def test_what_is_no_transaction(text: str) -> None:
    with pytest.raises(UsageError):
        parsed(text.encode())


def test_values_as_json_and_back() -> None:
    value = {"a": [1, 2.5, None, True, b"\0\xff"], "b": {"c": "d"}}
    assert made(plain(value)) == value
    assert plain({1: "x"}) == {"1": "x"}
    assert parsed(b'{"compare": [{"key": "a", "value": null}]}') == (
        [keys.value_is("a", None)],
        [],
        [],
    )
    assert parsed(b'{"compare": [{"lock": "l", "token": 3}]}')[0] == [keys.holds("l", 3)]
