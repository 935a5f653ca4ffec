"""The shadow's reading of what jobs need of peers: task by task, out of who owns what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from p2psched.model.commands import PeerUp
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec
from p2psched.model.needs import Needs, Offer, Offers

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

LEVEL: Final = 5  # from there on peers say what they have


def is_choosy(spec: JobSpec) -> bool:
    return spec.needs is not None or spec.policy != ""


def accepts(s: Shadow, spec: JobSpec) -> bool:
    """Some peer, up or not, could run it."""
    if spec.needs is None:
        return True
    peers = list(s.live)
    return not peers or any(_suits(s, peer, spec) for peer in peers)


def came_up(s: Shadow, command: PeerUp, known: tuple[int, bool] | None) -> None:
    """A new process has not said what it has."""
    peer = command.info.peer
    s.slots[peer] = command.info.slots
    if known is None or command.continues != known[0]:
        s.offers.pop(peer, None)


def offer(s: Shadow, command: Offer) -> None:
    if s.level >= LEVEL and s.live.get(command.peer) == (command.incarnation, True):
        s.offers[command.peer] = command.offers


def may_own(s: Shadow, name: JobId, peer: PeerId, wanted: Iterable[int]) -> list[int]:
    """Those of its tasks that the peer may be given, lowest first; it owns none of them."""
    spec = s.jobs[name].spec
    if spec.needs is None and not s.has_apart:
        return sorted(wanted)
    needs = spec.needs or Needs()
    there = s.runs_on(peer)
    jobs = {job for job, _ in there}
    if any(job in needs.apart for job in jobs - {name}):
        return []
    if any(name in (s.jobs[job].spec.needs or Needs()).apart for job in jobs - {name}):
        return []
    if spec.needs is None:
        return sorted(wanted)
    if not _suits(s, peer, spec):
        return []
    have = s.offers.get(peer, Offers())
    taken = [s.jobs[job].spec.needs or Needs() for job, _ in there]
    own = sum(job == name for job, _ in there)
    given: list[int] = []
    for index in sorted(wanted):
        more = [*taken, *[needs] * (len(given) + 1)]
        if needs.gpus and sum(each.gpus for each in more) > have.gpus:
            break
        if needs.memory_mib and sum(each.memory_mib for each in more) > have.memory_mib:
            break
        if name in needs.apart and own + len(given) >= 1:
            break
        given.append(index)
    return given


def evened(
    s: Shadow, name: JobId, giver: PeerId, taker: PeerId, wanted: Iterable[int]
) -> list[int]:
    """Those that may go from one failure domain to another without spreading the job worse."""
    job = s.jobs[name]
    key = (job.spec.needs or Needs()).spread

    def domain(peer: PeerId) -> str:
        return s.offers.get(peer, Offers()).label(key)

    where = [domain(s.holders[grant][0]) for grant in job.owner.values() if grant > 0]
    chosen = sorted(wanted)
    if domain(giver) == domain(taker):
        return chosen
    more = where.count(domain(giver)) - where.count(domain(taker))
    return chosen[: max(0, more // 2)]


def _suits(s: Shadow, peer: PeerId, spec: JobSpec) -> bool:
    needs, have = spec.needs or Needs(), s.offers.get(peer, Offers())
    return (
        s.slots[peer] >= spec.cpus
        and have.gpus >= needs.gpus
        and have.memory_mib >= needs.memory_mib
        and set(needs.require) <= set(have.labels)
    )
