"""The tree of errors: every class can be told from every other, in a shell and over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from p2psched.model import errors
from p2psched.model.errors import Busy, P2PSchedError, Unavailable, from_wire


def _tree(kind: type[P2PSchedError] = P2PSchedError) -> Iterator[type[P2PSchedError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


KINDS = tuple(_tree())


def test_no_two_classes_share_a_code() -> None:
    codes = [kind.code for kind in KINDS if kind is not Busy]  # to older peers that is unavailable
    assert len(set(codes)) == len(codes) == 20


def test_exit_codes_tell_whose_fault_it_is() -> None:
    assert {kind.__name__: kind.exit_code for kind in KINDS} == {
        "P2PSchedError": 1,
        "UsageError": 2,
        "NotFound": 2,
        "Refused": 5,
        "Forgotten": 5,
        "Deadlock": 5,
        "LockLost": 7,
        "Removed": 5,
        "Static": 5,
        "TooOld": 5,
        "Redelivered": 5,
        "Conflict": 1,
        "Unavailable": 3,
        "Busy": 3,
        "NoSpace": 3,
        "TimedOut": 4,
        "TaskFailed": 1,
        "ResultLost": 1,
        "ProtocolError": 3,
        "Damaged": 6,
        "InternalError": 70,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_travelled_is_of_the_same_class(kind: type[P2PSchedError]) -> None:
    sent = kind("no job 1f: see `p2psched jobs`")
    received = from_wire(sent.code, str(sent), 0, busy=kind is Busy)
    assert type(received) is kind
    assert (received.code, str(received)) == (sent.code, str(sent))


def test_busy_says_when_to_come_back() -> None:
    received = from_wire(Unavailable.code, "busy", 2_500)
    assert isinstance(received, Unavailable)
    assert received.retry_after_s == 2.5


def test_an_error_of_a_newer_version_keeps_its_message() -> None:
    received = from_wire("not-invented-yet", "what happened", 0)
    assert type(received) is P2PSchedError
    assert str(received) == "what happened"


def test_not_found_is_caught_with_the_other_mistakes_of_the_caller() -> None:
    assert issubclass(errors.NotFound, errors.UsageError)
    assert not issubclass(errors.Unavailable, errors.UsageError)
