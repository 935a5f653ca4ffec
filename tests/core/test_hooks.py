"""Webhooks in the ledger: who is there, how far each has come, and what is refused."""

from __future__ import annotations

import pytest

from p2psched.core.capture import Capture
from p2psched.core.machine import Machine
from p2psched.core.replica import fold
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import Acknowledged, Command, Envelope, Outcome, RaiseLevel, Rejected
from p2psched.model.event_messages import EventFilter, Place
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.webhook import WEBHOOKS_MAX, AckWebhook, AddWebhook, RemoveWebhook, fault_of

URL = "http://host:1/path"
ENDED = EventFilter(kinds=("job.ended",))


class Ledger:
    """At the level that webhooks need; one command an entry."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.do(RaiseLevel(3))

    def do(self, command: Command) -> Outcome:
        index = self.machine.applied_index + 1
        batch = Committed(index, index, 0, (Envelope(PeerId("p"), index, command),))
        return fold(self.machine, batch).outcomes[0]


def code_of(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Rejected) else ""


def test_a_webhook_begins_with_the_next_entry_or_earlier_and_moves_on_as_it_is_told() -> None:
    ledger = Ledger()
    assert ledger.do(AddWebhook("a", URL, ENDED)) == Acknowledged()
    hook = ledger.machine.webhooks["a"]
    assert (hook.acked, hook.wanted) == (Place(3), ENDED)
    ledger.do(AckWebhook("a", hook.added, Place(9, 2)))
    ledger.do(AckWebhook("a", hook.added, Place(9, 1)))  # of an earlier coordinator, and late
    assert ledger.machine.webhooks["a"].acked == Place(9, 2)
    ledger.do(AddWebhook("b", URL, start=Place(1)))
    ledger.do(AddWebhook("c", URL, start=Place(99_999)))
    assert ledger.machine.webhooks["b"].acked == Place(1)
    assert ledger.machine.webhooks["c"].acked == Place(ledger.machine.applied_index + 1)


def test_the_same_again_is_the_same_and_another_of_that_name_is_refused() -> None:
    ledger = Ledger()
    ledger.do(AddWebhook("a", URL, ENDED))
    before = ledger.machine.webhooks["a"]
    assert ledger.do(AddWebhook("a", URL, ENDED)) == Acknowledged()
    assert code_of(ledger.do(AddWebhook("a", URL))) == "usage"
    assert ledger.machine.webhooks == {"a": before}


def test_what_was_told_of_a_removed_webhook_moves_no_later_one() -> None:
    ledger = Ledger()
    ledger.do(AddWebhook("a", URL))
    first = ledger.machine.webhooks["a"]
    assert ledger.do(RemoveWebhook("a")) == Acknowledged()
    assert code_of(ledger.do(RemoveWebhook("a"))) == "not-found"
    ledger.do(AddWebhook("a", URL))
    second = ledger.machine.webhooks["a"]
    ledger.do(AckWebhook("a", first.added, Place(99)))
    assert ledger.machine.webhooks["a"] == second


def test_there_are_only_so_many() -> None:
    ledger = Ledger()
    for number in range(WEBHOOKS_MAX):
        assert ledger.do(AddWebhook(f"w{number}", URL)) == Acknowledged()
    assert code_of(ledger.do(AddWebhook("more", URL))) == "refused"


def test_before_all_peers_know_them_they_are_refused() -> None:
    machine = Machine()
    command = AddWebhook("a", URL)
    batch = Committed(1, 1, 0, (Envelope(PeerId("p"), 1, command),))
    assert code_of(fold(machine, batch).outcomes[0]) == "unavailable"
    assert machine.webhooks == {}


def test_a_snapshot_holds_them_also_one_that_is_taken_meanwhile() -> None:
    ledger = Ledger()
    ledger.do(AddWebhook("a", URL, ENDED))
    before = encode_machine(ledger.machine)
    capture = Capture(ledger.machine)
    command = RemoveWebhook("a")
    index = ledger.machine.applied_index + 1
    batch = Committed(index, index, 0, (Envelope(PeerId("p"), 1, command),))
    capture.before([batch])
    fold(ledger.machine, batch)
    assert b"".join(capture.pieces()) == before
    twin = Machine()
    restore_machine(twin, before)
    assert twin.webhooks["a"].url == URL
    assert encode_machine(twin) == before


@pytest.mark.parametrize(
    ("name", "url", "what"),
    [
        ("", URL, "name"),
        ("a/b", URL, "name"),
        ("a" * 65, URL, "name"),
        ("a", "ftp://host/", "URL is like"),
        ("a", "http://", "URL is like"),
        ("a", "http://host:99999/", "URL is like"),
        ("a", "http://[::1", "URL is like"),
        ("a", "http://host/ x", "no blanks"),
        ("a", "http://host/\r\nX: y", "no blanks"),
        ("a", "http://hóst/", "ASCII"),
        ("a", "http://user:word@host/", "without user"),
        ("a", f"http://host/{'x' * 3_000}", "up to 2,048"),
    ],
)
def test_an_address_that_can_be_none_is_refused(name: str, url: str, what: str) -> None:
    assert what in fault_of(name, url, EventFilter())
    assert code_of(Ledger().do(AddWebhook(name, url))) == "usage"


@pytest.mark.parametrize("url", [URL, "https://example.org", "http://[::1]:80/x?y=1", "http://h/"])
def test_a_usual_address_is_fine(url: str) -> None:
    assert fault_of("a", url, EventFilter()) == ""
