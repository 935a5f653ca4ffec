"""When the coordinator proposes that what is due may happen."""

from __future__ import annotations

from typing import Final

from p2psched.core import acts
from p2psched.core.state import LedgerState
from p2psched.model.actions import Elapsed
from p2psched.model.commands import Command

ELAPSE_RETRY_MS: Final = 1_000  # a proposal that is not applied by then is made again


class Elapsing:
    def __init__(self, state: LedgerState) -> None:
        self._state = state
        self._proposed = (-1, 0)  # what was due when we last proposed so, and when to do it again

    def begin(self) -> None:
        """Another coordinator has been there."""
        self._proposed = (-1, 0)

    def due(self, ledger_ms: int) -> list[Command]:
        """Proposed again after a while if it has not happened: the same twice is no harm."""
        due_ms = acts.next_due_ms(self._state)
        if due_ms is None or due_ms > ledger_ms:
            return []
        proposed_due_ms, again_ms = self._proposed
        if due_ms == proposed_due_ms and ledger_ms < again_ms:
            return []
        self._proposed = (due_ms, ledger_ms + ELAPSE_RETRY_MS)
        return [Elapsed(ledger_ms)]
