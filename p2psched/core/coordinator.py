"""What the coordinator alone may do: place what nobody live owns, and declare peers down.

It decides on applied state only, one round of placements at a time. Its decisions are proposals:
a stale one changes nothing. It declares nobody down before it has listened for a whole window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2psched.core.machine import Machine
from p2psched.core.placement import Candidate, has_room, share_out
from p2psched.model.commands import Command, Envelope, PeerDown, Place, SubmitJob
from p2psched.model.ids import PeerId

DETECTION_WINDOW_MS: Final = 2500  # silence after which a peer is declared down
PLACEMENTS_MAX: Final = 256  # commands in one round; the next round goes on


class Coordinator:
    """Idle unless this peer coordinates."""

    def __init__(self, me: PeerId, machine: Machine, *, window_ms: int) -> None:
        self._me = me
        self._machine = machine
        self._window_ms = window_ms
        self._since_ms: int | None = None  # coordinating since; None: somebody else does
        self._declared_ms: dict[tuple[PeerId, int], int] = {}

    def on_coordinator(self, now_ms: int, *, is_self: bool) -> None:
        self._since_ms = now_ms if is_self else None
        self._declared_ms.clear()

    @property
    def coordinates(self) -> bool:
        return self._since_ms is not None

    def find_dead(self, now_ms: int, contacts: Mapping[PeerId, int]) -> list[Command]:
        """`contacts`: peer -> when it was last heard. Each is proposed once a window."""
        if self._since_ms is None:
            return []
        commands: list[Command] = []
        for peer, row in sorted(self._machine.peers.items()):
            if peer == self._me or not row.live:
                continue
            heard_ms = max(contacts.get(peer, 0), self._since_ms)
            key = (peer, row.info.incarnation)
            asked_ms = self._declared_ms.get(key, now_ms - self._window_ms)
            if now_ms - heard_ms >= self._window_ms and now_ms - asked_ms >= self._window_ms:
                self._declared_ms[key] = now_ms
                reason = f"not heard for {now_ms - heard_ms} ms"
                commands.append(PeerDown(peer, row.info.incarnation, reason))
        return commands

    def place(self) -> list[Command]:
        """Placements for tasks that nobody live owns, oldest job first."""
        if self._since_ms is None:
            return []
        machine = self._machine
        candidates = self._candidates() if machine.unplaced else []
        commands: list[Command] = []
        for job in sorted((machine.jobs[job] for job in machine.unplaced), key=lambda j: j.index):
            tasks = job.placeable
            estimate_us = job.estimate_us or machine.estimate_us
            owned_here: dict[PeerId, int] = {}
            for held in job.grants.values():
                owned_here[held.peer] = owned_here.get(held.peer, 0) + len(held.tasks)
            shares = share_out(
                tasks,
                candidates,
                estimate_us=estimate_us,
                cpus=job.spec.cpus,
                owned_here=owned_here,
            )
            for candidate, share in shares:
                commands.append(Place(job.id, share, candidate.peer, candidate.incarnation))
                candidates = _with_load(candidates, candidate, len(share), estimate_us)
            if len(commands) >= PLACEMENTS_MAX or not any(map(has_room, candidates)):
                break
        return commands

    def first_placements(self, envelopes: Iterable[Envelope]) -> list[Command]:
        """Placements that travel in the same entry as the jobs that they are for: saves a round."""
        submits = [e.command for e in envelopes if isinstance(e.command, SubmitJob)]
        if self._since_ms is None or not submits:
            return []
        candidates = self._candidates()
        commands: list[Command] = []
        for command in submits:
            if command.job in self._machine.jobs:
                continue
            estimate_us, spec = self._machine.estimate_us, command.spec
            shares = share_out(
                spec.tasks, candidates, estimate_us=estimate_us, cpus=spec.cpus, owned_here={}
            )
            for candidate, share in shares:
                commands.append(Place(command.job, share, candidate.peer, candidate.incarnation))
                candidates = _with_load(candidates, candidate, len(share), estimate_us)
        return commands

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(peer, row.info.incarnation, row.info.slots, row.owned, row.load_us)
            for peer, row in sorted(self._machine.peers.items())
            if row.live and row.info.slots > 0
        ]


def _with_load(
    candidates: list[Candidate], chosen: Candidate, count: int, estimate_us: int
) -> list[Candidate]:
    """The view after a share was given away, so that one round doesn't flood one peer."""
    return [
        Candidate(c.peer, c.incarnation, c.slots, c.owned + count, c.load_us + count * estimate_us)
        if c.peer == chosen.peer
        else c
        for c in candidates
    ]
