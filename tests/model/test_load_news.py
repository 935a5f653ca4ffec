"""A delta stands for the report that it was made of, as far as it names fields."""

from __future__ import annotations

import random

import msgspec
import pytest

from p2psched.model.load import LoadReport, TypeSpeed
from p2psched.model.load_news import (
    FIELDS,
    SPEEDS_MAX,
    LoadDelta,
    LoadNews,
    WholeLoad,
    applied,
    delta,
)
from p2psched.testing.sim_load import SimPeerLoad

BASE = LoadReport(number=3, slots=4, queue=7, speeds=(TypeSpeed(1, 10, 1, 1),))


def sent(news: LoadNews) -> LoadNews:
    arrived: LoadNews = msgspec.msgpack.decode(msgspec.msgpack.encode(news), type=LoadNews)
    return arrived


@pytest.mark.parametrize("seed", range(5))
def test_with_all_fields_a_delta_gives_the_very_report(seed: int) -> None:
    peer = SimPeerLoad(random.Random(seed), jobs_per_min=20)
    reports = [peer.look(now_ms) for now_ms in range(0, 60_000, 100)]
    base = msgspec.structs.replace(reports[0], number=1)
    for number, report in enumerate(reports[1:], 2):
        now = msgspec.structs.replace(report, number=number)
        change = sent(delta(base, now, FIELDS))
        assert isinstance(change, LoadDelta)
        found = applied(base, change)
        assert set(found.speeds) == set(now.speeds)
        assert msgspec.structs.replace(found, speeds=now.speeds) == now


def test_fields_that_are_not_named_stay_as_they_were_told() -> None:
    now = msgspec.structs.replace(BASE, number=4, slots=8, queue=9)
    found = applied(BASE, delta(BASE, now, ["queue"]))
    assert (found.number, found.slots, found.queue) == (4, 4, 9)


def test_of_speeds_only_those_are_told_that_differ() -> None:
    slow, other = TypeSpeed(1, 99, 1, 2), TypeSpeed(2, 5, 0, 1)
    change = delta(BASE, msgspec.structs.replace(BASE, number=4, speeds=(slow, other)), ["speeds"])
    assert change.values == ((slow, other),)
    one_more = msgspec.structs.replace(BASE, number=5, speeds=(*BASE.speeds, other))
    found = applied(BASE, delta(BASE, one_more, FIELDS))
    assert found.speeds == (*BASE.speeds, other)


def test_speeds_are_bounded_however_many_are_told() -> None:
    many = tuple(TypeSpeed(kind, 1, 1, 1) for kind in range(100, 100 + SPEEDS_MAX))
    found = applied(BASE, LoadDelta(3, 4, 1 << FIELDS.index("speeds"), (many,)))
    assert found.speeds == many


def test_fields_of_a_newer_version_are_skipped() -> None:
    change = LoadDelta(3, 4, 1 << FIELDS.index("queue") | 1 << (len(FIELDS) + 2), (8, "new"))
    assert applied(BASE, change).queue == 8
    longer = [110, [*msgspec.to_builtins(BASE), 5, ["more"]]]
    assert msgspec.convert(longer, LoadNews) == WholeLoad(BASE)


@pytest.mark.parametrize("values", [(), ("x",), (1.5,), (None,), ([1],)])
def test_a_delta_without_proper_values_is_none(values: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"lacks a value|Expected `int`"):
        applied(BASE, LoadDelta(3, 4, 1 << FIELDS.index("queue"), values))
