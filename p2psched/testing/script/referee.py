"""What must hold whatever a script does. A broken promise is a line that begins with `!!`."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from p2psched.model.raft import Entry, VoteReply


class Referee:
    """Looks at all peers at once, which nobody else can."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[int, str], str] = {}
        self.committed: dict[int, Entry] = {}

    @property
    def last_committed(self) -> int:
        return max(self.committed, default=0)

    def on_said(self, sender: str, to: str, message: msgspec.Struct) -> None:
        """One vote a term (P4)."""
        match message:
            case VoteReply(term=term, granted=True, pre=False):
                first = self._votes.setdefault((term, sender), to)
                if first != to:
                    self._say(f"!! {sender} votes twice in term {term}: for {first} and for {to}")
            case _:
                pass

    def on_leader(self, name: str, term: int, has: Callable[[Entry], bool]) -> None:
        """One leader a term, which has all that was ever committed (P4)."""
        first = self._leaders.setdefault(term, name)
        if first != name:
            self._say(f"!! term {term} has two leaders: {first} and {name}")
        for index, entry in self.committed.items():
            if entry.term < term and not has(entry):
                self._say(f"!! {name} leads without the committed entry {index}@{entry.term}")

    def on_commit(self, name: str, entry: Entry) -> None:
        """A committed entry never changes (P4)."""
        first = self.committed.setdefault(entry.index, entry)
        if first != entry:
            self._say(
                f"!! {name} commits {entry.index}@{entry.term}, "
                f"and {first.index}@{first.term} was committed there before"
            )

    def on_read(self, name: str, index: int, floor: int) -> None:
        """A read sees what was committed before it was asked (P8)."""
        if index < floor:
            self._say(f"!! {name} reads up to {index}, and {floor} was committed before it asked")
