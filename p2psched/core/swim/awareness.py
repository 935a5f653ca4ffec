"""How far this peer trusts its own ears: Lifeguard's local health.

A peer that is starved of CPU hears answers late or not at all and would suspect healthy peers. Each
sign that the fault is here raises the score, each answer in time lowers it; the limits of probes
are stretched by it.
"""

from __future__ import annotations

from typing import Final

SCORE_MAX: Final = 8


class Awareness:
    def __init__(self) -> None:
        self.score = 0  # 0: healthy

    def add(self, delta: int) -> None:
        self.score = min(max(0, self.score + delta), SCORE_MAX)

    def stretched_ms(self, limit_ms: int) -> int:
        return limit_ms * (self.score + 1)
