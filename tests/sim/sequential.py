"""What each command means when commands come one after another: the model of one job.

A third reading of the commands, for the linearizability checker: immutable, a number a task. It
takes three things from the ledger: the *name* of a grant whose proposer never learned it; once a
task is suspected of killing its peers, which of the tasks that a placement might have granted it
did; and which tasks have failed as killers: what else a peer owned counts for both, and is no part
of one job. Order and effect of operations are the checker's to find. Operations that never happened
are not in the history.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, NamedTuple, Self

from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Completed,
    Outcome,
    PeerDown,
    PeerUp,
    Place,
    Placed,
    Rejected,
    SubmitJob,
    Submitted,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.linearizable import EVERYTHING, UNKNOWN, Operation

WAITING: Final = 0  # grants are 1 and more
SUCCEEDED: Final = -1
FAILED: Final = -2
CANCELLED: Final = -3
_NOT_TRIED_AGAIN: Final = frozenset({Cause.NOT_SERIALISABLE, Cause.TOO_LARGE})

Proposal = tuple[PeerId, int]
Look = tuple[str, tuple[int, ...]]  # what a read sees: the job's state, and that of each task


class Proposed(NamedTuple):
    """The argument of an operation; `proposal` names those that peers propose themselves."""

    job: JobId | None  # None: it concerns all jobs
    command: Command | None  # None: a read
    proposal: Proposal | None = None


class Granting(NamedTuple):
    """What the ledger made of a placement when it was first committed."""

    number: int
    tasks: TaskSet
    suspicious: bool  # some task was a suspect by then, of whichever job


NO_GRANTING: Final = Granting(0, EMPTY, suspicious=False)


class State(NamedTuple):
    """One job, and who is up."""

    job: JobId | None = None
    known: bool = False
    first: int = 0  # the job's tasks are first, first + 1, ...
    retries: int = 0
    owner: tuple[int, ...] = ()  # each task: a grant, or one of the numbers above
    failures: tuple[int, ...] = ()
    said: frozenset[tuple[int, int]] = frozenset()  # grant, task: it had its say
    holders: frozenset[tuple[int, PeerId]] = frozenset()  # grant, peer
    peers: frozenset[tuple[PeerId, int, bool]] = frozenset()  # newest incarnation, is it up

    def look(self) -> Look | None:
        if not self.known:
            return None
        if CANCELLED in self.owner:
            return "cancelled", self.owner
        if any(owner >= WAITING for owner in self.owner):
            return "running", self.owner
        return ("failed" if FAILED in self.owner else "succeeded"), self.owner

    def peer(self, peer: PeerId) -> tuple[int, bool]:
        return next(((number, up) for p, number, up in self.peers if p == peer), (-1, False))

    def with_peer(self, peer: PeerId, incarnation: int, *, up: bool) -> State:
        others = frozenset(row for row in self.peers if row[0] != peer)
        return self._replace(peers=others | {(peer, incarnation, up)})

    def indices(self, tasks: TaskSet) -> TaskSet:
        return tasks & TaskSet.of(self.first, self.first + len(self.owner))


class JobModel:
    """What is asked is `Proposed`; answers are outcomes, or a `Look` for a read."""

    def __init__(
        self,
        grants: Mapping[Proposal, Granting],
        killers: Mapping[Proposal, Mapping[JobId, TaskSet]],
    ) -> None:
        self._grants = grants  # of placements
        self._killers = killers  # of what takes tasks from a peer

    def initial(self) -> State:
        return State()

    def key(self, asked: object) -> Hashable:
        """The job: all operations but those on peers concern one."""
        assert isinstance(asked, Proposed)
        return EVERYTHING if asked.job is None else asked.job

    def step(self, state: State, asked: object, answer: object) -> tuple[bool, State]:
        assert isinstance(asked, Proposed)
        if asked.command is None:
            return answer == state.look(), state
        killers = self._killers.get(asked.proposal, {}) if asked.proposal is not None else {}
        if killers and state.job is not None:
            state = _fail(state, killers.get(state.job, EMPTY))
        outcome, after = self._apply(state, asked)
        return answer in (UNKNOWN, outcome), after

    def informed(self, operations: Sequence[Operation]) -> Self:
        return self

    def only_looks(self, asked: object, answer: object) -> bool:
        assert isinstance(asked, Proposed)
        return asked.command is None

    def words(self, state: State) -> str:
        return repr(state.look())

    def _apply(self, state: State, asked: Proposed) -> tuple[Outcome, State]:
        match asked.command:
            case SubmitJob():
                return _submit(state, asked.command)
            case Cancel(job=job):
                return _cancel(state, job)
            case Place():
                assert asked.proposal is not None
                return _place(state, asked.command, self._grants.get(asked.proposal, NO_GRANTING))
            case Complete():
                return _complete(state, asked.command)
            case PeerUp():
                assert asked.job is None
                return _peer_up(state, asked.command)
            case PeerDown(peer=peer, incarnation=incarnation):
                if state.peer(peer) == (incarnation, True):
                    state = state.with_peer(peer, incarnation, up=False)
                return Acknowledged(), state
            case _:
                raise AssertionError(f"nobody asks for {asked.command} in these histories")


def _submit(state: State, command: SubmitJob) -> tuple[Outcome, State]:
    if state.known:
        return Submitted(command.job, duplicate=True), state
    spec, size = command.spec, len(command.spec.tasks)
    first = spec.tasks.first
    fresh = (WAITING,) * size
    state = state._replace(
        job=command.job, known=True, first=first, retries=spec.retries, owner=fresh, failures=fresh
    )
    return Submitted(command.job, duplicate=False), state


def _fail(state: State, tasks: TaskSet) -> State:
    owner, said = list(state.owner), set(state.said)
    for index in state.indices(tasks):
        at = owner[index - state.first]
        if at >= WAITING:
            owner[index - state.first] = FAILED
            said.add((at, index))
    return state._replace(owner=tuple(owner), said=frozenset(said))


def _cancel(state: State, job: JobId) -> tuple[Outcome, State]:
    if not state.known:
        return Rejected("not-found", f"no job {job}"), state
    owner = tuple(CANCELLED if at >= WAITING else at for at in state.owner)
    return Acknowledged(), state._replace(owner=owner, holders=frozenset())


def _place(state: State, command: Place, granting: Granting) -> tuple[Outcome, State]:
    grant = granting.number
    if not state.known or state.peer(command.peer) != (command.incarnation, True):
        return Placed(grant, EMPTY), state
    holders, owner = dict(state.holders), list(state.owner)
    taken = []
    for index in state.indices(command.tasks):
        at = owner[index - state.first]
        if granting.suspicious and index not in granting.tasks:
            continue
        if at == WAITING or (at > 0 and not state.peer(holders[at])[1]):
            owner[index - state.first] = grant
            taken.append(index)
    if taken:
        holders[grant] = command.peer
    state = state._replace(owner=tuple(owner), holders=frozenset(holders.items()))
    return Placed(grant, TaskSet.from_indices(taken)), state


def _complete(state: State, command: Complete) -> tuple[Outcome, State]:
    owner, failures, said = list(state.owner), list(state.failures), set(state.said)
    accepted: list[int] = []
    duplicate: list[int] = []
    stale: list[int] = []
    for segment in command.segments:
        for index in segment.tasks:
            at = index - state.first
            if not state.known or owner[at] != command.grant:
                (duplicate if (command.grant, index) in said else stale).append(index)
                continue
            accepted.append(index)
            said.add((command.grant, index))
            owner[at] = _end(segment.cause, tries_left=state.retries - failures[at])
            failures[at] += owner[at] == WAITING
    outcome = Completed(*map(TaskSet.from_indices, (accepted, duplicate, stale)))
    state = state._replace(owner=tuple(owner), failures=tuple(failures), said=frozenset(said))
    return outcome, state


def _end(cause: Cause, *, tries_left: int) -> int:
    if cause is Cause.OK:
        return SUCCEEDED
    return FAILED if cause in _NOT_TRIED_AGAIN or tries_left <= 0 else WAITING


def _peer_up(state: State, command: PeerUp) -> tuple[Outcome, State]:
    peer, incarnation = command.info.peer, command.info.incarnation
    known, is_up = state.peer(peer)
    if incarnation < known:
        text = f"incarnation {incarnation} of {command.info.name} is over"
        return Rejected("refused", text), state
    if incarnation == known:
        text = f"incarnation {incarnation} of {command.info.name} is down"
        return (Acknowledged() if is_up else Rejected("refused", text)), state
    kept = {(k.grant, index) for k in command.kept for index in k.tasks}
    mine = {grant for grant, holder in state.holders if holder == peer}
    owner = tuple(
        WAITING if at in mine and (at, index) not in kept else at
        for index, at in enumerate(state.owner, start=state.first)
    )
    return Acknowledged(), state._replace(owner=owner).with_peer(peer, incarnation, up=True)
