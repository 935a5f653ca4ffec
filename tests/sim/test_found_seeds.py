"""Seeds that found something, kept as they were found."""

from __future__ import annotations

import pytest

from p2psched.testing.simulate import Options, simulate


@pytest.mark.parametrize(
    "seed", [910294, 911206, 930129, 950583, 950626, 950641, 980061, 980476, 7731009, 7731017]
)
def test_it_is_found_no_more(seed: int) -> None:
    """910294: a batch lost, then one that its workers did not begin, at a peer alone. 911206: a
    job's tasks are given up and run again before it has ended. 930129: a peer that is to be tried
    after a quarantine asks for nothing, and the only policy gives to who asks. 950641: a suspect of
    a queue in order is proposed to be placed, again and again, while it isn't its turn. 980061: a
    task that must not start twice looks for its checkpoint while its peer stands still, and begins
    after `max_disconnect`. False alarms: in 950583 a forgotten attempt came back as the first; in
    950626 a vote was taken away without which nobody could lead, which no real peer does.
    980476: who ran what should have been over long ago held it for little, and asked for more, so
    a task went to and fro. 7731017: tasks waited for a quicker peer that was always expected to be
    free soon, and never was. 7731009, a false alarm: who is left with a task, and the end of its
    whole job, in one command.
    All are from before jobs came after others."""
    simulate(seed, Options(ordering=False))


def test_a_drained_peer_gives_back_what_it_has_forgotten() -> None:
    """Its watchdog looked for that only where it took tasks."""
    simulate(79)
