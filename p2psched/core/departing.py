"""Tasks that their owner has set aside: it gives them back, or to another peer, and starts none of
them before it knows what the ledger made of that.

What is not known to have gone is still its own, and comes back to the front of the queue. A repeat
of a proposal may be answered otherwise than the first (see `Machine._is_repeat`): so the ledger's
state has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator

from p2psched.core.state import LedgerState
from p2psched.model.commands import Complete, GiveBack, Grant, Outcome, Placed
from p2psched.model.ids import JobId
from p2psched.model.moves import Transfer
from p2psched.model.pace_commands import Warn
from p2psched.model.taskset import EMPTY, TaskSet

Parting = GiveBack | Transfer
Own = Complete | Parting | Warn  # what an owner proposes


class Departing:
    """Of one owner."""

    def __init__(self, state: LedgerState) -> None:
        self._state = state
        self._proposed: dict[int, Parting] = {}  # by request
        self.lost: list[GiveBack] = []  # to propose: what nobody here knows any more
        self.stayed = 0  # tasks that could not move

    @property
    def is_giving_back(self) -> bool:
        return any(isinstance(command, GiveBack) for command in self._proposed.values())

    @property
    def moves(self) -> int:
        """Under way to other peers."""
        return sum(isinstance(command, Transfer) for command in self._proposed.values())

    def take_lost(self) -> list[GiveBack]:
        """To propose at once."""
        lost, self.lost = self.lost, []
        return lost

    def awaits(self, request: int) -> bool:
        return request in self._proposed

    def proposed(self, request: int, command: Parting) -> None:
        self._proposed[request] = command

    def on_outcome(self, request: int, outcome: Outcome) -> Parting | None:
        """What was proposed so, with the tasks that stay; None if it was nothing of this."""
        command = self._proposed.pop(request, None)
        if not isinstance(command, Transfer):
            return command
        job = self._state.jobs.get(command.job)
        stay = job.current_part(command.grant, command.tasks) if job is not None else EMPTY
        if isinstance(outcome, Placed):
            stay = stay - outcome.tasks  # a follower is told of its tasks a little later
        self.stayed += len(stay)
        return Transfer(command.job, command.grant, stay, command.peer, command.incarnation)

    def parts(self) -> Iterator[tuple[JobId, Grant, TaskSet]]:
        for command in (*self.lost, *self._proposed.values()):
            yield command.job, command.grant, command.tasks
