"""Keys in the ledger: as a dictionary with versions, whole transactions, bounds, leases, marks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import keys
from p2psched.core.event_log import records_of
from p2psched.core.replica import fold
from p2psched.model.actions import Act, fault_of
from p2psched.model.commands import Envelope
from p2psched.model.event_messages import EventFilter, EventRecord
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.key_actions import (
    KEY_BYTES_MAX,
    OPS_MAX,
    VALUE_BYTES_MAX,
    Compare,
    DeleteKey,
    Entry,
    GetInside,
    Holds,
    KeyAction,
    KeyAnswer,
    KeyChanged,
    KeyConflict,
    KeyDeleted,
    KeyPut,
    KeyRead,
    Op,
    PutKey,
    Transact,
    Transacted,
    ValueIs,
    VersionIs,
)
from p2psched.model.lease_actions import EndLease, TakeLease
from p2psched.model.lock_actions import AcquireLock, ReleaseLock
from tests.core.acts_rig import LEASES, Client, Ledger, code_of

A, B, *_ = LEASES


def begun() -> tuple[Ledger, Client]:
    ledger = Ledger()
    return ledger, Client(ledger)


# --- against a model ------------------------------------------------------------------------------


class Model:
    """A dictionary: key -> (value, version, created, lease)."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, int, int, str | None]] = {}
        self.leases: set[str] = set()

    def entry(self, key: str) -> Entry | None:
        held = self.held.get(key)
        return Entry(key, *held) if held is not None else None

    def version(self, key: str) -> int:
        return self.held[key][1] if key in self.held else 0

    def op(self, op: Op, version: int) -> KeyPut | KeyDeleted | KeyRead:
        match op:
            case PutKey(key=key, value=value, lease=lease):
                created = self.held[key][2] if key in self.held else version
                self.held[key] = (value, version, created, lease)
                return KeyPut(version)
            case DeleteKey(key=key):
                return KeyDeleted(self.held.pop(key, None) is not None)
            case GetInside(key=key):
                return KeyRead(self.entry(key))

    def holds(self, compare: Compare) -> bool:
        if isinstance(compare, VersionIs):
            return self.version(compare.key) == compare.version
        assert isinstance(compare, ValueIs)
        return compare.key in self.held and self.held[compare.key][0] == compare.value

    def do(self, action: KeyAction, version: int) -> KeyAnswer | None:
        """None: refused."""
        ops: Sequence[Op]
        if isinstance(action, Transact):
            held = all(map(self.holds, action.compare))
            ops = action.then if held else action.otherwise
        else:
            if action.expected not in {None, self.version(action.key)}:
                return KeyConflict(self.entry(action.key))
            ops = (action,)
        leases = {op.lease for op in ops if isinstance(op, PutKey)} - {None}
        if not leases <= self.leases:
            return None
        results = tuple(self.op(op, version) for op in ops)
        if isinstance(action, Transact):
            return Transacted(held, version, results)
        assert not isinstance(results[0], KeyRead)
        return results[0]


KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "ä"])
VALUES = st.binary(max_size=3)
HANGING = st.none() | st.sampled_from(LEASES)
VERSIONS = st.integers(0, 30)
PUTS = st.builds(PutKey, KEYS, VALUES, HANGING, st.none() | VERSIONS)
DELETES = st.builds(DeleteKey, KEYS, st.none() | VERSIONS)
OPS = st.lists(PUTS | DELETES | st.builds(GetInside, KEYS), max_size=4).map(tuple)
COMPARES = st.builds(VersionIs, KEYS, VERSIONS) | st.builds(ValueIs, KEYS, VALUES)
TRANSACTIONS = st.builds(Transact, st.lists(COMPARES, max_size=2).map(tuple), OPS, OPS)
LEASE_STEPS = st.builds(TakeLease, st.sampled_from(LEASES), st.just(5_000)) | st.builds(
    EndLease, st.sampled_from(LEASES)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PUTS | DELETES | TRANSACTIONS | LEASE_STEPS | st.just("restart"), max_size=30))
def test_keys_are_a_dictionary_with_versions(steps: list[object]) -> None:
    ledger, client = begun()
    model = Model()
    for step in steps:
        match step:
            case TakeLease(lease=lease):
                client.do(step)
                model.leases.add(lease)
            case EndLease(lease=lease):
                client.do(step)
                model.leases.discard(lease)
                model.held = {k: held for k, held in model.held.items() if held[3] != lease}
            case PutKey() | DeleteKey() | Transact():
                outcome = client.act(step)
                expected = model.do(step, ledger.machine.command_index)
                if expected is None:
                    assert code_of(outcome) == "refused"
                    assert ledger.events == []
                else:
                    assert getattr(outcome, "answer", outcome) == expected
            case _:
                ledger.restart()
        found = list(keys.entries(ledger.machine, "", None))
        assert found == [model.entry(key) for key in sorted(model.held)]
        assert ledger.machine.key_bytes == sum(entry.size for entry in found)
        for prefix in ("a", "a/", "b", "x"):
            wanted = [entry for entry in found if entry.key.startswith(prefix)]
            assert list(keys.entries(ledger.machine, prefix, None)) == wanted
            assert list(keys.entries(ledger.machine, prefix, "a/1")) == [
                entry for entry in wanted if entry.key > "a/1"
            ]


# --- one by one -----------------------------------------------------------------------------------


def test_of_two_that_expect_the_same_version_one_wins_and_the_other_is_told() -> None:
    ledger, first = begun()
    second = Client(ledger)
    put = first.do(PutKey("k", b"0", expected=0))
    assert isinstance(put, KeyPut)
    won = first.do(PutKey("k", b"1", expected=put.version))
    lost = second.do(PutKey("k", b"2", expected=put.version))
    assert isinstance(won, KeyPut)
    assert lost == KeyConflict(Entry("k", b"1", won.version, put.version))
    assert ledger.events == []
    assert second.do(DeleteKey("k", expected=put.version)) == lost
    assert second.do(DeleteKey("k", expected=won.version)) == KeyDeleted(was_there=True)
    assert second.do(PutKey("k", b"3", expected=won.version)) == KeyConflict(None)


def test_a_lost_race_stays_lost_when_it_is_repeated_after_the_key_is_gone() -> None:
    _, client = begun()
    client.do(PutKey("k", b"0"))
    lost = client.act(PutKey("k", b"1", expected=0))
    client.act(DeleteKey("k"), number=3, settled=2)
    assert client.act(PutKey("k", b"1", expected=0), number=2, settled=2) == lost
    assert not client.ledger.machine.keys


def test_a_refused_transaction_has_done_nothing_of_what_stands_before() -> None:
    ledger, client = begun()
    client.do(PutKey("a", b"0"))
    before = dict(ledger.machine.keys)
    ops = (PutKey("a", b"1"), DeleteKey("a"), PutKey("b", b"1", A))
    assert code_of(client.act(Transact((), ops))) == "refused"
    assert ledger.machine.keys == before
    assert ledger.events == []


def test_the_keys_of_a_lease_go_with_it_in_one_command() -> None:
    ledger, client = begun()
    client.do(TakeLease(A, 5_000))
    client.do(TakeLease(B, 60_000))
    for key in ("z", "m", "a"):
        client.do(PutKey(key, b"", A))
    client.do(PutKey("kept", b""))
    client.do(PutKey("m", b"", B))
    client.do(PutKey("z", b""))
    client.do(PutKey("z", b"", A))
    ledger.restart()
    ledger.now_ms += 10_000
    gone = [event for event in ledger.elapse() if isinstance(event, KeyChanged)]
    assert [(event.key, event.value, event.lease) for event in gone] == [
        ("a", None, A),
        ("z", None, A),
    ]
    assert {event.version for event in gone} == {ledger.machine.command_index}
    assert sorted(ledger.machine.keys) == ["kept", "m"]
    assert set(ledger.machine.lease_keys) == {B}


def test_what_a_lock_guards_is_changed_only_under_its_newest_token() -> None:
    ledger, first = begun()
    second = Client(ledger)
    for client, lease in ((first, A), (second, B)):
        client.do(TakeLease(lease, 5_000 if lease == A else 60_000))
        client.do(AcquireLock("l", lease, lease))

    def put(client: Client, token: int, value: bytes) -> bool:
        done = client.do(Transact((Holds("l", token),), (PutKey("k", value),)))
        assert isinstance(done, Transacted)
        return done.held

    token = ledger.machine.lock_token
    assert put(first, token, b"1")
    assert not put(second, token + 1, b"2")
    ledger.now_ms += 10_000
    ledger.elapse()
    newer = ledger.machine.lock_token
    assert newer > token
    assert not put(first, token, b"3"), "it does not know yet that it lost the lock"
    assert put(second, newer, b"4")
    assert not put(second, 0, b"5")
    second.do(ReleaseLock("l", B))
    assert not put(second, newer, b"6")
    assert ledger.machine.keys["k"].value == b"4"


# --- bounds ---------------------------------------------------------------------------------------


def test_keys_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    monkeypatch.setattr(keys, "KEYS_BYTES_MAX", 10)
    _, client = begun()
    client.do(PutKey("a", b"123"))
    client.do(PutKey("b", b"1"))
    assert code_of(client.act(PutKey("c", b""))) == "refused"
    assert code_of(client.act(PutKey("b", b"123456"))) == "refused"
    swapped = client.do(Transact((), (PutKey("c", b"1"), DeleteKey("b"))))
    assert isinstance(swapped, Transacted)
    client.do(PutKey("a", b"12345"))


def test_what_is_over_a_bound_may_still_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = begun()
    client.do(PutKey("a", b"123"))
    client.do(PutKey("b", b"123"))
    monkeypatch.setattr(keys, "KEYS_BYTES_MAX", 5)
    client.do(PutKey("a", b"1"))
    client.do(DeleteKey("b"))
    client.do(PutKey("c", b"1"))


def test_keys_of_one_lease_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LEASE_KEYS_MAX", 1)
    _, client = begun()
    client.do(TakeLease(A, 5_000))
    client.do(PutKey("a", b"", A))
    client.do(PutKey("a", b"1", A))
    assert code_of(client.act(PutKey("b", b"", A))) == "refused"


def test_a_transaction_reads_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "TRANSACTION_BYTES_MAX", 5)
    ledger, client = begun()
    client.do(PutKey("a", b"123"))
    ops: tuple[Op, ...] = (PutKey("b", b"456"), GetInside("a"), GetInside("b"))
    assert code_of(client.act(Transact((), ops))) == "refused"
    assert "b" not in ledger.machine.keys


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (PutKey("", b""), "1 to 1024 bytes"),
        (PutKey("ä" * (KEY_BYTES_MAX // 2 + 1), b""), "1 to 1024 bytes"),
        (PutKey("\ud800", b""), "1 to 1024 bytes"),
        (PutKey("k", bytes(VALUE_BYTES_MAX + 1)), "256 KiB are the most"),
        (Transact((), (DeleteKey("k"),) * (OPS_MAX + 1)), "up to 128"),
        (Transact((), (PutKey("k", bytes(VALUE_BYTES_MAX)),) * 3), "512 KiB together"),
        (Transact((VersionIs("", 0),), ()), "1 to 1024 bytes"),
        (PutKey("ä" * (KEY_BYTES_MAX // 2), bytes(VALUE_BYTES_MAX)), ""),
    ],
)
def test_what_can_not_be_proposed(action: KeyAction, fault: str) -> None:
    found = fault_of(action)
    assert fault in found
    assert bool(fault) == bool(found)


# --- events and marks -----------------------------------------------------------------------------


class Told(Ledger):
    """With the public events of each entry."""

    def __init__(self) -> None:
        self.told: list[EventRecord] = []
        super().__init__()

    def act_all(self, client: Client, *actions: KeyAction) -> None:
        """In one entry."""
        index = self.machine.applied_index + 1
        envelopes = []
        for action in actions:
            client.number += 1
            act = Act(client.name, client.number, client.number, action)
            envelopes.append(Envelope(PeerId("p"), client.number, act))
        batch = Committed(index, self.now_ms, 0, tuple(envelopes))
        self.told += records_of(fold(self.machine, batch))


def test_changes_are_told_with_their_values_for_those_who_ask() -> None:
    ledger = Told()
    client = Client(ledger)
    ledger.act_all(client, PutKey("a/1", b"1"), PutKey("b", b"2"), DeleteKey("a/1"))
    told = [(r.kind, r.data["key"], r.value, r.position) for r in ledger.told]
    assert told == [
        ("key.put", "a/1", b"1", 0),
        ("key.put", "b", b"2", 1),
        ("key.deleted", "a/1", None, 2),
    ]
    versions = [record.command for record in ledger.told]
    assert versions == sorted(set(versions))
    wanted = EventFilter(kinds=("key.",), prefix="a/")
    assert [r.data["key"] for r in ledger.told if wanted.fits(r)] == ["a/1", "a/1"]


@pytest.mark.parametrize("most", [4, 1_000])
def test_who_watches_from_a_version_finds_an_entry_before_the_next_change(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(keys, "MARKS_MAX", most)
    ledger = Told()
    client = Client(ledger)
    assert keys.entry_of_version(ledger.machine, 0) is None
    for number in range(60):
        ledger.act_all(client, *[PutKey(f"k{number}", b"")] * (number % 4))
    assert len(ledger.machine.key_marks) <= most
    for version in range(ledger.machine.command_index + 2):
        start = keys.entry_of_version(ledger.machine, version)
        assert start is not None
        behind = [record.index for record in ledger.told if record.command > version]
        assert not behind or start <= behind[0]
        if most > 60 and behind:
            assert start >= behind[0] - 2, "and not long before"
    for entry in range(ledger.machine.applied_index + 1):
        version = keys.version_at(ledger.machine, entry)
        assert all(record.index >= entry for record in ledger.told if record.command > version)
        start = keys.entry_of_version(ledger.machine, version)
        assert version == ledger.machine.command_index or (start is not None and start >= entry)
