"""One task among peers that gossip makes a difference between: as many are shared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.placement import BACKLOG_US, Candidate
from p2psched.core.policies.adaptive import Lean, lean_many, lean_one
from p2psched.core.policies.base import Ask
from p2psched.core.policies.speeds import USUAL
from p2psched.model.ids import JobId, PeerId

NAMES = [PeerId(name) for name in "abcde"]


@st.composite
def views(draw: st.DrawFn) -> tuple[Ask, list[Candidate], dict[PeerId, Lean]]:
    cpus = draw(st.integers(1, 2))
    peers = [
        Candidate(
            *(name, 1, draw(st.integers(cpus, 4)), draw(st.integers(0, 12))),
            load_us=draw(st.sampled_from([0, 0, 1_000, 50_000, BACKLOG_US, 3 * BACKLOG_US])),
            is_self=name == "c",
        )
        for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    ]
    speeds = st.sampled_from([20, 500, USUAL, 1_003, 4_000])
    leans = {
        peer.peer: Lean(
            *(draw(speeds), draw(speeds), draw(st.sampled_from([0, 0, 700, 90_000]))),
            spare=draw(st.sampled_from([20, 300, USUAL])),
        )
        for peer in peers
    }
    ask = Ask(
        *(JobId("0" * 32), 1, draw(st.integers(1, 600_000)), cpus),
        owned_here={name: draw(st.integers(0, 9)) for name in NAMES},
        most=draw(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2))),
        whole=draw(st.booleans()),
    )
    return ask, peers, leans


@given(views())
def test_one_task_goes_where_it_would_go_as_one_of_many(
    view: tuple[Ask, list[Candidate], dict[PeerId, Lean]],
) -> None:
    ask, peers, leans = view
    power = sum(peer.slots * leans[peer.peer].speed for peer in peers) / USUAL
    assert lean_one(ask, peers, leans, power) == lean_many(ask, peers, leans, power)
