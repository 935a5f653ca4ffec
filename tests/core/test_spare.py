"""Whose machine others use takes part with what they leave of it."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.feed import Say
from p2psched.core.giving import ROUND_US, Lot, choose
from p2psched.core.machine import Machine
from p2psched.core.policies.registry import ADAPTIVE
from p2psched.core.scheduler import Clocked, Followed
from p2psched.core.spare import SPARE_MIN, WHOLE, spare, usable
from p2psched.core.state import PeerRow
from p2psched.core.stealing import REST_MS_MAX
from p2psched.core.thief import by_rows
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, Seen
from p2psched.model.steal_messages import Gives, Steal
from tests.core.policies.test_policies import ask, counted, notes, peer, seen
from tests.core.test_machine import up
from tests.core.test_stealing import A, B, Pair


def report(foreign: int, *, cores: int = 2, duty: int = WHOLE) -> LoadReport:
    return LoadReport(number=1, slots=2, cores=cores, foreign_cpu=foreign, duty=duty)


@pytest.mark.parametrize(
    ("told", "slots", "left"),
    [
        (None, 2, WHOLE),
        (report(0), 2, WHOLE),
        (report(90), 2, WHOLE),  # on any machine something else runs
        (report(750), 2, 250),
        (report(750, cores=8), 2, WHOLE),  # two processors are free
        (report(750, cores=1), 2, 250),  # not less: its slots were never whole processors
        (report(1_000), 2, SPARE_MIN),
        (report(0, duty=300), 2, 300),
        (report(500, duty=800), 2, 500),
    ],
)
def test_what_is_left_of_a_slot(told: LoadReport | None, slots: int, left: int) -> None:
    assert spare(told, slots) == left


def test_so_much_of_its_slots_is_used_and_one_at_least() -> None:
    assert [usable(4, share) for share in (WHOLE, 740, 500, 100)] == [4, 3, 2, 1]
    assert usable(4, 100, cpus=3) == 3
    assert usable(2, 100, cpus=3) == 2


def test_adaptive_gives_tasks_that_may_only_wait_to_as_many_slots_as_are_left() -> None:
    hogged, calm = seen(peer(1, slots=4), report(750, cores=4)), seen(peer(2, slots=4), report(0))
    wanted = msgspec.structs.replace(ask(200), estimate_us=300_000)
    given = counted(ADAPTIVE.share(wanted, [hogged, calm], notes()))
    assert 1 <= given[hogged.peer] * 3 <= given[calm.peer]
    busy = msgspec.structs.replace(hogged, owned=1, load_us=300_000)
    left = msgspec.structs.replace(wanted, count=8, owned_here={hogged.peer: 1})
    assert not counted(ADAPTIVE.share(left, [busy, calm], notes()))[hogged.peer]


def test_adaptive_expects_a_peer_to_take_as_long_as_its_duty_says() -> None:
    lazy, other = seen(peer(1), report(0, duty=200)), seen(peer(2), report(0))
    wanted = msgspec.structs.replace(ask(400), estimate_us=100_000)
    given = counted(ADAPTIVE.share(wanted, [lazy, other], notes()))
    assert given[other.peer] >= 3 * given[lazy.peer] > 0
    last = msgspec.structs.replace(wanted, count=2)
    assert not counted(ADAPTIVE.share(last, [lazy, other], notes()))[lazy.peer]


def test_a_thief_whose_machine_is_used_gets_its_part_and_nothing_that_ends_sooner_here() -> None:
    lots = [Lot(90, 100_000, 1)]
    ((_, free),) = choose(lots, slots=1, busy_us=0, taker_slots=1)
    ((_, used),) = choose(lots, slots=1, busy_us=0, taker_slots=1, taker_spare=200)
    assert (free, used) == (45, 15)
    worth = 400_000 + ROUND_US  # a task takes five times as long there
    for waits_us, count in ((worth - 1, 0), (worth, 1)):
        one, busy_us = [Lot(1, 100_000, 1)], waits_us - 100_000
        chosen = choose(one, slots=1, busy_us=busy_us, taker_slots=1, taker_spare=200)
        assert sum(number for _, number in chosen) == count
    both = choose(lots, slots=1, busy_us=0, taker_slots=1, spare=200, taker_spare=200)
    assert both == [(0, 45)], "a thief is compared with who gives"


def look(pair: Pair, foreign: int) -> None:
    """All that b hears of itself."""
    me = Seen(B, 1, Liveness.ALIVE, 0, report(foreign))
    pair.peers[B].step(Clocked(pair.now_ms, {}, seen={B: me}))


def asked(pair: Pair) -> list[Steal]:
    found = [e.message for e in pair.turn(B) if isinstance(e, Say)]
    return [message for message in found if isinstance(message, Steal)]


def test_who_took_tasks_asks_for_no_more_before_they_can_have_ended_on_what_is_left() -> None:
    pair = Pair()
    look(pair, 800)
    (steal,) = asked(pair)
    assert steal.spare == 200
    pair.peers[A].machine.jobs[pair.job].estimate_us = 100_000
    pair.peers[B].machine.jobs[pair.job].estimate_us = 100_000
    pair.peers[A].step(Followed(pair.now_ms, B, steal))
    pair.turn(A)
    (move,) = pair.moves
    pair.commit_all(move)
    count = len(pair.held(B))
    assert count
    pair.turn(B)
    thief = pair.peers[B].stealing.thief
    took_ms = count * 100 * WHOLE // (2 * 200)
    thief.on_news(pair.now_ms)
    assert not thief.may_ask(pair.now_ms + took_ms - 1)
    assert thief.may_ask(pair.now_ms + took_ms)
    assert took_ms < REST_MS_MAX


def test_who_has_its_machine_for_itself_asks_as_soon_as_it_is_idle() -> None:
    pair = Pair()
    look(pair, 0)
    (steal,) = asked(pair)
    assert steal.spare == WHOLE
    pair.peers[A].step(Followed(pair.now_ms, B, steal))
    pair.turn(A)
    pair.commit_all(*pair.moves)
    assert pair.peers[B].stealing.thief.may_ask(pair.now_ms)


def test_what_is_said_of_a_thief_is_kept_within_bounds() -> None:
    pair = Pair()
    for number, told in enumerate((0, -5, 10**9)):
        pair.peers[A].step(Followed(pair.now_ms, B, Steal(number, 1, 2, spare=told)))
        said = [e.message for e in pair.turn(A) if isinstance(e, Say)]
        assert [one for one in said if isinstance(one, Gives)]


def test_the_queue_of_who_is_slowed_down_looks_as_long_as_it_takes() -> None:
    machine = Machine()
    row = machine.peers[A] = PeerRow(up(A).info)
    row.owned, row.load_us = 9, 20_000
    hogged = {A: Seen(A, 1, Liveness.ALIVE, 0, report(800))}
    assert by_rows(machine, PeerId("me"), {}) == []
    (busy,) = by_rows(machine, PeerId("me"), hogged)
    assert busy.wait_us == 50_000
