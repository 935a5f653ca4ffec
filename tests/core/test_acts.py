"""Acts act once, leases end in ledger time, and what is due happens in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import acts
from p2psched.core.acts import CALLERS_MAX, UNSETTLED_MAX
from p2psched.core.capture import Capture
from p2psched.core.deadlines import Deadlines
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.actions import Act, Acted, Elapsed
from p2psched.model.commands import Command, Envelope, Event
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.key_actions import PutKey
from p2psched.model.lease_actions import (
    EndLease,
    Enrol,
    KeepLeases,
    LeaseBegan,
    LeaseEnded,
    LeaseOver,
    LeasesKept,
    LeaseTaken,
    TakeLease,
)
from tests.core.acts_rig import LEASES, Client, Ledger, code_of

A, B, C, D = LEASES


def ended(events: list[Event]) -> list[tuple[str, bool]]:
    return [(e.lease, e.expired) for e in events if isinstance(e, LeaseEnded)]


# --- once -----------------------------------------------------------------------------------------


def test_a_repeat_is_answered_as_the_first_was_and_changes_nothing() -> None:
    ledger = Ledger()
    client = Client(ledger)
    first = client.act(TakeLease(A, 5_000))
    ledger.now_ms += 3_000
    assert client.act(TakeLease(A, 5_000), number=1) == first == Acted(LeaseTaken(5_000))
    assert ledger.events == []
    assert ledger.machine.leases[A].deadline_ms == 6_000, "the repeat renewed nothing"
    assert client.act(KeepLeases((B,)), number=2) == client.act(KeepLeases((B,)), number=2)


def test_a_repeat_is_known_after_a_restart_too() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(TakeLease(A, 5_000))
    first = client.act(EndLease(A))
    ledger.restart()
    client.act(TakeLease(A, 5_000), number=3, settled=2)
    assert client.act(EndLease(A), number=2, settled=2) == first
    assert A in ledger.machine.leases


def test_what_a_caller_has_settled_acts_no_more_whenever_it_arrives() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.act(TakeLease(A, 5_000), number=2, settled=1)
    client.act(TakeLease(B, 5_000), number=3, settled=3)
    assert code_of(client.act(EndLease(A), number=1, settled=1)) == "forgotten"
    assert code_of(client.act(EndLease(A), number=2, settled=2)) == "forgotten"
    assert A in ledger.machine.leases
    assert list(ledger.machine.acted) == [(client.name, 3)]


def test_nothing_is_done_for_a_caller_that_is_not_known() -> None:
    ledger = Ledger()
    assert code_of(ledger.do(Act(7, 1, 1, TakeLease(A, 5_000)))) == "forgotten"
    assert not ledger.machine.leases


def test_the_caller_that_was_silent_longest_is_forgotten_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acts, "CALLERS_MAX", 2)
    ledger = Ledger()
    first, second = Client(ledger), Client(ledger)
    second.do(TakeLease(B, 5_000))
    first.do(TakeLease(A, 5_000))
    third = Client(ledger)
    assert code_of(second.act(EndLease(A))) == "forgotten"
    assert code_of(second.act(TakeLease(B, 5_000), number=1, settled=1)) == "forgotten"
    assert first.act(TakeLease(A, 5_000), number=1) == Acted(LeaseTaken(5_000))
    assert set(ledger.machine.callers) == {third.name, first.name}
    assert A in ledger.machine.leases
    assert CALLERS_MAX > 1_000


def test_outcomes_that_nobody_has_heard_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "OUTCOMES_MAX", 3)
    ledger = Ledger()
    idle, busy = Client(ledger), Client(ledger)
    for number in (1, 2):
        idle.act(EndLease(A), number=number, settled=1)
    for number in (1, 2):
        busy.act(EndLease(A), number=number, settled=1)
    assert list(ledger.machine.acted) == [(busy.name, 1), (busy.name, 2)]
    assert code_of(idle.act(EndLease(A), number=3)) == "forgotten"


def test_of_a_single_caller_with_too_many_bytes_only_the_facts_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acts, "OUTCOME_BYTES_MAX", 100)
    ledger = Ledger()
    client = Client(ledger)
    gone = tuple(f"{number:032x}" for number in range(10, 13))
    assert client.act(KeepLeases(gone)) == Acted(LeasesKept(gone))
    assert code_of(client.act(KeepLeases(gone), number=1)) == "refused"


def test_a_caller_may_not_run_ahead_of_what_it_has_heard() -> None:
    ledger = Ledger()
    client = Client(ledger)
    far = UNSETTLED_MAX + 1
    assert code_of(client.act(TakeLease(A, 5_000), number=far, settled=1)) == "unavailable"
    assert client.act(TakeLease(A, 5_000), number=far, settled=2) == Acted(LeaseTaken(5_000))
    assert code_of(client.act(TakeLease(A, 5_000), number=far + 1, settled=far + 2)) == "usage"


def test_before_the_level_is_raised_nothing_acts() -> None:
    machine = Machine()
    commands: tuple[Command, ...] = (Act(0, 0, 0, Enrol()), Elapsed(1))
    envelopes = tuple(Envelope(PeerId("p"), number, c) for number, c in enumerate(commands))
    outcomes, _ = machine.apply(Committed(1, 1, 0, envelopes))
    assert [code_of(outcome) for outcome in outcomes] == ["unavailable", "unavailable"]
    assert not machine.callers


# --- leases ---------------------------------------------------------------------------------------


def test_a_lease_ends_when_ledger_time_has_passed_its_deadline_and_not_before() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(TakeLease(A, 5_000, "me"))
    assert ledger.events == [LeaseBegan(A, 5_000, "me")]
    assert acts.next_due_ms(ledger.machine) == 6_000
    ledger.now_ms = 5_999
    assert ended(ledger.elapse(upto_ms=99_999)) == [], "a clock that runs ahead ends nothing early"
    ledger.now_ms = 99_999
    assert ended(ledger.elapse(upto_ms=5_999)) == []
    assert ended(ledger.elapse(upto_ms=6_000)) == [(A, True)]
    assert client.do(KeepLeases((A,))) == LeasesKept((A,))
    assert acts.next_due_ms(ledger.machine) is None


def test_a_renewal_that_is_committed_before_the_end_wins() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(TakeLease(A, 5_000))
    ledger.now_ms = 8_000
    assert client.do(KeepLeases((A, B))) == LeasesKept((B,))
    assert ended(ledger.elapse()) == []
    ledger.restart()
    ledger.now_ms = 13_000
    assert ended(ledger.elapse()) == [(A, True)]


def test_a_lease_that_is_let_go_of_ends_at_once_and_once() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(TakeLease(A, 5_000))
    assert client.do(EndLease(A)) == LeaseOver()
    assert ended(ledger.events) == [(A, False)]
    assert client.do(EndLease(A)) == LeaseOver()
    assert ledger.events == []
    ledger.now_ms = 99_999
    assert ended(ledger.elapse()) == []


def test_what_is_due_happens_in_order_of_time() -> None:
    ledger = Ledger()
    client = Client(ledger)
    for lease, ttl_ms in ((A, 9_000), (B, 3_000), (C, 6_000), (D, 60_000)):
        client.do(TakeLease(lease, ttl_ms))
    ledger.now_ms = 20_000
    assert ended(ledger.elapse()) == [(B, True), (C, True), (A, True)]
    assert list(ledger.machine.leases) == [D]


def test_one_command_lets_only_so_much_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "LAPSES_MAX", 2)
    ledger = Ledger()
    client = Client(ledger)
    for lease in (A, B, C):
        client.do(TakeLease(lease, 1_000))
    ledger.now_ms = 9_000
    assert len(ended(ledger.elapse())) == 2
    assert len(ended(ledger.elapse())) == 1


def test_leases_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psched.core.leases.LEASES_MAX", 1)
    ledger = Ledger()
    client = Client(ledger)
    client.do(TakeLease(A, 5_000))
    assert code_of(client.act(TakeLease(B, 5_000))) == "refused"
    client.do(TakeLease(A, 9_000))
    assert ledger.machine.leases[A].ttl_ms == 5_000, "as it was taken first"


# --- deadlines ------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 30)) | st.integers(0, 30),
        max_size=200,
    )
)
def test_deadlines_come_as_from_a_sorted_list(steps: list[tuple[str, int | None] | int]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    known: dict[str, int] = {}
    for step in steps:
        if isinstance(step, int):
            due = min(((due, key) for key, due in known.items()), default=None)
            assert deadlines.next_ms() == (due[0] if due else None)
            expected = due[1] if due and due[0] <= step else None
            assert deadlines.take(step) == expected
            known.pop(expected or "", None)
        else:
            key, due_ms = step
            if due_ms is None:
                deadlines.drop(key)
                known.pop(key, None)
            else:
                deadlines.set(key, due_ms)
                known[key] = due_ms
        assert len(deadlines) == len(known)


def test_a_deadline_that_moves_often_takes_no_more_room() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for due_ms in range(10_000):
        deadlines.set("a", due_ms)
    assert len(deadlines._heap) < 100
    assert deadlines.next_ms() == 9_999


# --- bytes ----------------------------------------------------------------------------------------


def test_a_capture_of_leases_and_outcomes_is_of_its_moment() -> None:
    ledger = Ledger()
    client = Client(ledger)
    for lease in (A, B):
        client.do(TakeLease(lease, 5_000))
    other = Client(ledger)
    client.do(PutKey("k", b"1", A))
    assert list(ledger.machine.callers) == [other.name, client.name]
    wanted = encode_machine(ledger.machine)
    pieces = Capture(ledger.machine).pieces()
    found = [next(pieces)]
    client.do(TakeLease(C, 5_000))
    client.do(KeepLeases((A,)))
    client.do(EndLease(B))
    other.do(PutKey("k", b"2"))
    other.do(PutKey("l", b"2"))
    Client(ledger)
    assert b"".join([*found, *pieces]) == wanted
    restored = Machine()
    restore_machine(restored, wanted)
    assert list(restored.callers) == [other.name, client.name], "the order is part of the state"
