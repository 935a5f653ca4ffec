"""Who shall vote: the rules one by one, and what holds of any group."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.raft.group import (
    HEIR_SHARE,
    VOTERS_MAX,
    Demote,
    Promote,
    Seat,
    View,
    next_change,
)
from p2psched.model.ids import PeerId

AWAY_MS = 60_000
SILENT_MS = 1_000


def voter(peer: str, **what: object) -> Seat:
    return msgspec.convert({"peer": peer, "votes": True, **what}, Seat)


def learner(peer: str, **what: object) -> Seat:
    return msgspec.convert({"peer": peer, "votes": False, **what}, Seat)


def view(*seats: Seat, wanted: int = 5, unchanged_ms: int = 0) -> View:
    """The first one leads."""
    first = msgspec.structs.replace(seats[0], leads=True)
    return View((first, *seats[1:]), wanted, AWAY_MS, SILENT_MS, unchanged_ms)


def after(seen: View, change: Promote | Demote) -> View:
    """Everybody catches up at once, and nothing else happens for a while."""
    votes = isinstance(change, Promote)
    seats = tuple(
        msgspec.structs.replace(seat, votes=votes) if seat.peer == change.peer else seat
        for seat in seen.seats
    )
    return msgspec.structs.replace(seen, seats=seats, unchanged_ms=AWAY_MS)


def settled(seen: View) -> View:
    """After all changes that follow, in time; there are at most a few for each member."""
    for _ in range(4 * len(seen.seats) + 4):
        change = next_change(seen)
        if change is not None:
            seen = after(seen, change)
        elif seen.unchanged_ms:
            return seen
        else:
            seen = msgspec.structs.replace(seen, unchanged_ms=AWAY_MS)
    raise AssertionError("it never ends")


def names(seen: View) -> str:
    return "".join(sorted(seat.peer for seat in seen.seats if seat.votes))


def away(seat: Seat) -> Seat:
    return msgspec.structs.replace(seat, silent_ms=AWAY_MS, ready=False)


# --- how many -------------------------------------------------------------------------------------


def test_the_number_of_voters_grows_with_the_peers_and_is_odd() -> None:
    for peers, voters in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)):
        seats = [voter("a"), *(learner(name) for name in "bcdefghi"[: peers - 1])]
        assert len(names(settled(view(*seats)))) == voters


def test_up_to_seven_are_wanted_on_demand_or_one() -> None:
    seats = [voter("a"), *(learner(name) for name in "bcdefgh")]
    assert len(names(settled(view(*seats, wanted=7)))) == 7
    five = [*map(voter, "abcde")]
    assert names(settled(view(*five, wanted=1))) == "a"
    assert names(settled(view(*five, wanted=3))) == "ade"


def test_nobody_is_made_a_voter_before_the_number_can_be_odd() -> None:
    assert next_change(view(voter("a"), learner("b"))) is None
    assert next_change(view(voter("a"), learner("b"), learner("c", ready=False))) is None
    assert next_change(view(voter("a"), learner("b"), learner("c"))) == Promote(PeerId("b"))


def test_one_who_does_not_want_to_vote_is_not_counted() -> None:
    seats = (voter("a"), learner("b"), learner("c", may_vote=False))
    assert next_change(view(*seats)) is None


def test_an_even_number_waits_for_who_catches_up_and_no_longer() -> None:
    two = (voter("a"), voter("b"), learner("c", ready=False, silent_ms=10))
    assert next_change(view(*two)) is None
    assert next_change(view(*two, unchanged_ms=AWAY_MS)) == Demote(PeerId("b"))
    assert next_change(view(*two[:2])) == Demote(PeerId("b"))


# --- who --------------------------------------------------------------------------------------


def test_a_voter_that_stays_away_is_replaced() -> None:
    group = view(voter("a"), voter("b"), away(voter("c")), learner("d"))
    change = next_change(group)
    assert change == Promote(PeerId("d"))
    assert next_change(after(group, change)) == Demote(PeerId("c"))
    assert names(settled(group)) == "abd"


def test_a_voter_that_is_silent_for_a_while_is_not() -> None:
    silent = voter("c", silent_ms=AWAY_MS - 1, ready=False)
    assert next_change(view(voter("a"), voter("b"), silent, learner("d"))) is None


def test_a_voter_makes_way_sooner_for_one_of_its_own_name() -> None:
    """Whoever lost its disk is started again under its old name."""
    silent_ms = AWAY_MS // HEIR_SHARE
    old = voter("c", name="worker", silent_ms=silent_ms, ready=False)
    group = view(voter("a"), voter("b"), old, learner("d", name="worker"))
    change = next_change(group)
    assert change == Promote(PeerId("d"))
    assert next_change(after(group, change)) == Demote(PeerId("c"))
    for seats in (
        (old, learner("d", name="worker", ready=False)),
        (old, learner("d", name="another")),
        (voter("c", silent_ms=silent_ms), learner("d")),  # no names
        (voter("c", name="worker", silent_ms=silent_ms - 1), learner("d", name="worker")),
    ):
        assert next_change(view(voter("a"), voter("b"), *seats)) is None


def test_without_a_learner_a_voter_that_is_away_keeps_its_vote() -> None:
    assert next_change(view(voter("a"), voter("b"), away(voter("c")))) is None
    late = learner("d", ready=False, silent_ms=10)
    assert next_change(view(voter("a"), voter("b"), away(voter("c")), late)) is None


def test_two_of_five_that_are_away_give_their_votes_back() -> None:
    """Three that are up bear one more loss; three of five that are up bear none."""
    group = view(*map(voter, "abc"), away(voter("d")), away(voter("e")))
    assert names(settled(group)) == "abc"
    assert next_change(view(*map(voter, "abcd"), away(voter("e")))) is None


def test_the_leader_stays_and_those_that_answer_stay_a_majority() -> None:
    assert names(settled(view(*map(voter, "abcd")))) == "acd"
    silent = [voter(name, silent_ms=SILENT_MS) for name in "cd"]
    assert next_change(view(voter("a"), voter("b"), *silent)) == Demote(PeerId("c"))
    mute = [voter(name, silent_ms=SILENT_MS) for name in "bc"]
    assert next_change(view(voter("a"), *mute, wanted=1)) is None


def test_who_leads_anew_counts_on_nobody_that_has_not_answered_yet() -> None:
    """It counts everybody as heard at first, also one that died before."""
    gone = voter("c", answered=False)
    assert next_change(view(voter("a"), voter("b"), gone, wanted=1)) == Demote(PeerId("c"))
    assert next_change(view(voter("a"), voter("b", answered=False), gone, wanted=1)) is None
    chosen = voter("c", answered=False, chosen=True)
    assert next_change(view(voter("a"), voter("b", answered=False), chosen, wanted=1)) is None


def test_a_chosen_peer_takes_the_place_of_one_that_nobody_chose() -> None:
    group = view(*map(voter, "abc"), learner("d", chosen=True), wanted=3)
    assert names(settled(group)) == "acd"
    alone = view(voter("a"), learner("b", chosen=True))
    assert next_change(after(alone, Promote(PeerId("b")))) == Demote(PeerId("a"))
    assert names(settled(alone)) == "b"
    chosen = [voter(name, chosen=True) for name in "abc"]
    assert next_change(view(*chosen, learner("d", chosen=True), wanted=3)) is None


def test_voters_are_spread_over_the_zones() -> None:
    group = view(
        voter("a", zone="x"),
        *(learner(name, zone=zone) for name, zone in zip("bcdef", "xxyyz", strict=True)),
        wanted=3,
    )
    assert names(settled(group)) == "adf"


def test_a_crowded_zone_makes_way_once_nothing_has_changed_for_a_while() -> None:
    crowd = (voter("a", zone="x"), voter("b", zone="x"), voter("c", zone="y"))
    other = learner("d", zone="z")
    assert next_change(view(*crowd, other)) is None
    assert names(settled(view(*crowd, other, unchanged_ms=AWAY_MS))) == "acd"
    assert next_change(view(*crowd, learner("d", zone="y"), unchanged_ms=AWAY_MS)) is None


# --- what holds of any group ------------------------------------------------------------------


SILENCES_MS = (0, SILENT_MS, AWAY_MS // HEIR_SHARE, AWAY_MS)


@st.composite
def views(draw: st.DrawFn) -> View:
    count = draw(st.integers(1, 9))
    votes = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    seats = []
    for number in range(count):
        silent_ms = 0 if number == 0 else draw(st.sampled_from(SILENCES_MS))
        seats.append(
            Seat(
                peer=PeerId(f"p{number}"),
                votes=number == 0 or votes[number],
                zone=draw(st.sampled_from(("", "x", "y", "z"))),
                may_vote=draw(st.booleans()) or number == 0 or votes[number],
                chosen=draw(st.integers(0, 3)) == 0,
                silent_ms=silent_ms,
                ready=silent_ms == 0 and draw(st.booleans()),
                leads=number == 0,
                name=draw(st.sampled_from(("", "n", "m"))),
            )
        )
    wanted = draw(st.sampled_from((1, 3, 5, VOTERS_MAX)))
    unchanged_ms = draw(st.sampled_from((0, AWAY_MS)))
    return View(tuple(seats), wanted, AWAY_MS, SILENT_MS, unchanged_ms)


def leads_a_majority(seen: View) -> bool:
    voters = [seat for seat in seen.seats if seat.votes]
    return 2 * sum(seat.silent_ms < SILENT_MS for seat in voters) > len(voters)


@given(views())
def test_a_change_is_of_one_fit_member_and_keeps_a_majority(seen: View) -> None:
    change = next_change(seen)
    if change is None or not leads_a_majority(seen):
        return
    (seat,) = (seat for seat in seen.seats if seat.peer == change.peer)
    if isinstance(change, Promote):
        assert not seat.votes
        assert seat.may_vote
        assert seat.ready
    else:
        assert seat.votes
    assert leads_a_majority(after(seen, change))


@given(views())
def test_it_comes_to_rest_with_an_odd_number_that_a_majority_of_answers(seen: View) -> None:
    if not leads_a_majority(seen):
        return  # then it doesn't lead
    end = settled(seen)
    voters = [seat for seat in end.seats if seat.votes]
    assert leads_a_majority(end)
    assert len(voters) % 2 == 1
    assert len(voters) <= seen.wanted


@given(views())
def test_where_all_are_there_and_ready_it_is_as_wanted_and_spread(seen: View) -> None:
    seats = [msgspec.structs.replace(seat, silent_ms=0, ready=True) for seat in seen.seats]
    seats = [msgspec.structs.replace(seat, chosen=False) for seat in seats]
    end = settled(msgspec.structs.replace(seen, seats=tuple(seats), unchanged_ms=AWAY_MS))
    voters = [seat for seat in end.seats if seat.votes]
    fit = [seat for seat in end.seats if seat.may_vote or seat.votes]
    most = min(seen.wanted, len(fit))
    assert len(voters) == most - (most % 2 == 0)
    crowds = Counter(seat.domain for seat in voters)
    for seat in fit:
        assert seat.votes or max(crowds.values()) - crowds[seat.domain] <= 1
