"""What has changed of whom, to be told a bounded number of times: log of the group reaches all.

Only the newest of each peer is told. Those told least go first.
"""

from __future__ import annotations

from p2psched.model.gossip import Standing, size_of_standing
from p2psched.model.ids import PeerId


class _Rumour:
    __slots__ = ("size", "standing", "told")

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.size = size_of_standing(standing)
        self.told = 0


class Rumours:
    def __init__(self) -> None:
        self._rumours: dict[PeerId, _Rumour] = {}

    def __bool__(self) -> bool:
        return bool(self._rumours)

    def add(self, standing: Standing) -> None:
        self._rumours.pop(standing.peer, None)
        self._rumours[standing.peer] = _Rumour(standing)

    def forget(self, peer: PeerId) -> None:
        self._rumours.pop(peer, None)

    def take(self, room: int, transmits: int, first: Standing | None = None) -> list[Standing]:
        """Of at most `room` bytes together. `first` goes first and is not counted as told."""
        taken: list[Standing] = []
        if first is not None:
            room -= size_of_standing(first)
            taken.append(first)
        for rumour in sorted(self._rumours.values(), key=lambda rumour: rumour.told):
            if rumour.standing == first or rumour.size > room:
                continue
            room -= rumour.size
            taken.append(rumour.standing)
            rumour.told += 1
            if rumour.told >= transmits:
                del self._rumours[rumour.standing.peer]
        return taken
