"""The referee of locks: whose sections exclude each other never overlap, and tokens only rise.

A section of a caller that is frozen goes on without its knowing. Then what it writes is refused by
a guard that knows of a newer token, and by nothing else: so this is a guard, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.model.commands import Stamped
from p2psched.model.lock_actions import LockGranted
from p2psched.testing.promises import demand


class Section:
    """What a caller does while it holds a lock."""

    def __init__(self, caller: int, name: str, token: int, *, capacity: int, shared: bool) -> None:
        self.caller = caller
        self.name = name
        self.token = token
        self.capacity = capacity
        self.shared = shared
        self.is_frozen = False  # it knows nothing of what happens

    def __repr__(self) -> str:
        how = " (shared)" if self.shared else ""
        return f"caller {self.caller} in {self.name}{how} with token {self.token}"


class LockReferee:
    def __init__(self) -> None:
        self._inside: dict[str, list[Section]] = {}
        self._newest: dict[str, int] = {}  # token that an exclusive section came with
        self._wrote: dict[str, list[Section]] = {}  # in a row, exclusive ones
        self._seen = 0  # command whose events were looked at
        self._token = 0

    def on_events(self, events: Sequence[Stamped]) -> None:
        """Of an entry, as the first peer that has applied it tells them."""
        known = self._seen  # other peers have told these
        for stamped in events:
            event = stamped.event
            if isinstance(event, LockGranted) and stamped.index > known:
                demand(
                    event.token > self._token,
                    "P7",
                    f"lock {event.name} was given under token {event.token}, after {self._token}",
                )
                self._seen, self._token = stamped.index, event.token

    def enter(self, section: Section) -> int:
        """Its caller believes that it holds the lock now. How many are there still that are frozen,
        and believe so, too."""
        inside = self._inside.setdefault(section.name, [])
        others = [other for other in inside if not other.is_frozen]
        if section.capacity > 1:
            fits = len(others) < section.capacity
        else:
            fits = not others or (section.shared and all(other.shared for other in others))
        demand(fits, "P7", f"{section}, and so are {others}")
        newest = self._newest.get(section.name, 0)
        demand(section.token > newest, "P7", f"{section}, and {newest} was given before")
        if section.capacity == 1 and not section.shared:
            self._newest[section.name] = section.token
        inside.append(section)
        return len(inside) - len(others) - 1

    def leave(self, section: Section) -> None:
        self._inside[section.name].remove(section)

    def write(self, section: Section) -> bool:
        """To what an exclusive lock guards: taken from the newest token that was seen, or a newer
        one. Whoever is not frozen is always the newest."""
        if section.shared or section.capacity > 1:
            return True
        wrote = self._wrote.setdefault(section.name, [])
        if wrote and section.token < wrote[-1].token:
            demand(section.is_frozen, "P7", f"what {section} wrote was refused")
            return False
        demand(
            section not in wrote[:-1],
            "P7",
            f"{section} wrote after {wrote[-1:]}, who had its turn later",
        )
        if not wrote or wrote[-1] is not section:
            wrote.append(section)
        return True
