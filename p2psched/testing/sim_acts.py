"""A client of a simulated cluster that acts: through any peer, again under the same number when it
hears nothing, and sometimes once more long after it was answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from p2psched.model.actions import Act, Acted, Action, ActionAnswer
from p2psched.model.commands import Outcome, Rejected
from p2psched.model.lease_actions import Enrol, Enrolled

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

AGAIN_MS_MAX: Final = 1_500
AFTER_REFUSAL_MS: Final = 300
LATE: Final = 0.1  # of the acts come once more, after their answer
LATE_MS_MAX: Final = 8_000

Heard = Callable[[ActionAnswer | Rejected], None]


class SimActor:
    """One client. Draws by its own generator: a seed without it is the run that it was before."""

    def __init__(self, cluster: SimCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self._name: int | None = None
        self._numbers = 1
        self._open: dict[int, None] = {}

    def act(self, action: Action, heard: Heard) -> None:
        """Until it is answered."""
        if self._name is None:
            enrolled = partial(self._enrolled, action=action, heard=heard)
            self._send(Act(0, 0, 0, Enrol()), enrolled)
            return
        number, self._numbers = self._numbers, self._numbers + 1
        self._open[number] = None
        act = Act(self._name, number, next(iter(self._open)), action)

        def answered(outcome: Outcome) -> None:
            del self._open[number]
            if self.rng.random() < LATE:
                late_ms = self.rng.randrange(1, LATE_MS_MAX)
                self.cluster.after(late_ms, lambda: self._once(act))
            assert isinstance(outcome, Acted | Rejected)
            heard(outcome.answer if isinstance(outcome, Acted) else outcome)

        self._send(act, answered)

    @property
    def is_waiting(self) -> bool:
        return bool(self._open)

    def _enrolled(self, outcome: Outcome, action: Action, heard: Heard) -> None:
        assert isinstance(outcome, Acted)
        assert isinstance(outcome.answer, Enrolled)
        if self._name is None:
            self._name = outcome.answer.caller
        self.act(action, heard)

    def _once(self, act: Act) -> None:
        number = self.rng.randrange(len(self.cluster.peers))
        self.cluster.callers.call(number, act, lambda _: None)

    def _send(self, act: Act, answered: Callable[[Outcome], None]) -> None:
        """Ask one peer after another; an answer that comes after the next was asked is lost."""
        cluster, rng = self.cluster, self.rng

        def on_outcome(outcome: Outcome) -> None:
            if isinstance(outcome, Rejected) and outcome.code == "unavailable":
                cluster.after(AFTER_REFUSAL_MS, ask)
            else:
                answered(outcome)

        def ask() -> None:
            tag = cluster.callers.call(rng.randrange(len(cluster.peers)), act, on_outcome)
            cluster.after(rng.randrange(100, AGAIN_MS_MAX), lambda: again(tag))

        def again(tag: int) -> None:
            if cluster.callers.give_up(tag):
                cluster.happened["acts asked again"] += 1
                ask()

        ask()
