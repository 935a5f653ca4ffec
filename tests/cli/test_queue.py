"""`p2psched queue`: what people type, and what scripts read."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.cluster import COMMAND, LiveCluster

Fields = dict[str, Any]  # as JSON has it

pytestmark = pytest.mark.process


def said(cluster: LiveCluster, *words: str) -> Fields:
    found: Fields = json.loads(cluster.ok("queue", *words, "-o", "json"))
    return found


@pytest.mark.smoke
def test_an_item_is_put_taken_and_acked_by_one_command_each(live: LiveCluster) -> None:
    assert live.ok("queue", "put", "orders", "4 apples") == "item 1 put into orders\n"
    taken = said(live, "get", "orders")
    assert (taken["item"], taken["value"], taken["deliveries"]) == (1, "4 apples", 1)
    listed = said(live, "list", "orders")["items"]
    assert [(one["item"], one["state"]) for one in listed] == [(1, "in flight")]
    assert live.ok("queue", "ack", "orders", taken["receipt"]) == "acked item 1 of orders\n"
    again = live.run("queue", "ack", "orders", taken["receipt"])
    assert again.returncode == 5
    assert "not ours any more" in again.stderr
    empty = live.run("queue", "get", "orders")
    assert empty.returncode == 4
    assert "no item of queue orders" in empty.stderr


def test_what_is_nacked_comes_again_and_is_a_dead_letter_at_last(live: LiveCluster) -> None:
    live.ok("queue", "configure", "poison", "--max-deliveries", "2")
    said(live, "put", "poison", '{"n": 1}', "--parse", "--key", "k", "--priority", "3")
    for _ in range(2):
        receipt = live.ok("queue", "get", "poison", "-o", "quiet").strip()
        live.ok("queue", "nack", "poison", receipt)
    queues = {one["queue"]: one for one in said(live, "list")["queues"]}
    assert (queues["poison"]["items"], queues["poison"]["dead"]) == (0, 1)
    letter = said(live, "list", "poison.dead")["items"][0]
    assert (letter["value"], letter["origin"], letter["died_after"]) == ({"n": 1}, 1, 2)
    assert said(live, "redrive", "poison")["redriven"] == 1
    shown = live.run("queue", "get", "poison", "--ack")
    assert shown.stdout == '{"n": 1}\n'
    assert said(live, "list", "poison")["items"] == []
    live.ok("queue", "delete", "poison")
    assert live.run("queue", "purge", "poison").returncode == 2


def test_each_line_is_an_item_and_a_purge_drops_them(live: LiveCluster) -> None:
    done = subprocess.run(
        [*COMMAND, "queue", "put", "lines", "-", "--lines", "-o", "quiet"],
        input="".join(f"line {n}\n" for n in range(1_200)),
        env=live.env,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.split() == [str(n) for n in range(1, 1_201)]
    assert said(live, "get", "lines")["value"] == "line 0"
    assert said(live, "purge", "lines")["purged"] == 1_199


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("put", "a.dead", "x"), "only dead letters"),
        (("put", "a", "x", "--lines"), "give - for VALUE"),
        (("put", "a", "{", "--parse"), "is no JSON"),
        (("ack", "a", "1"), "write it like 3:4711"),
        (("list", "nowhere"), "no queue nowhere"),
        (("redrive", "a.dead"), "without .dead"),
    ],
)
def test_wrong_usage_is_said_in_one_line(
    live: LiveCluster, words: tuple[str, ...], says: str
) -> None:
    done = live.run("queue", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
