"""A stage for whole peers. What the ledger commits is told once, by whoever applies it first.

It is told from a book: a machine that nothing restores, restarts or loses. Each peer's state must
be equal to the book's at the same entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from p2psched.core.machine import Machine
from p2psched.model.commands import (
    Cancel,
    Command,
    Drain,
    DrainMode,
    Envelope,
    Forget,
    NewGeneration,
    Outcome,
    Pin,
    Place,
    Retry,
    SubmitJob,
)
from p2psched.model.execution import Batch, Committed
from p2psched.model.job import Cause, JobSpec, ProgramWork
from p2psched.model.messages import Forward
from p2psched.model.steal_messages import Gives, Steal
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.script.commands import Commands
from p2psched.testing.script.errors import ScriptError
from p2psched.testing.script.ledger import Peer
from p2psched.testing.script.ledger_words import Jobs, command_words, event_words, outcome_words
from p2psched.testing.script.stage import Words

SLOTS: Final = 2

_envelopes = msgspec.msgpack.Decoder(tuple[Envelope, ...]).decode


class LedgerStage(Commands[Peer]):
    """`cluster` elects its first peer and waits until all are known. Raft is not told of, but for
    who leads: see `show`."""

    shown_at_first = ("roles",)
    tells_elections = True

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self._slots = SLOTS
        self._level = 1
        self._book = Machine()
        self._dumps: dict[int, str] = {}

    # --- for the peers ---

    def make(self, name: str) -> Peer:
        return Peer(self, name, self._slots, self._level)

    def payload(self, data: bytes) -> str:
        try:
            return self._proposals(_envelopes(data))
        except msgspec.DecodeError:
            return "[what this version doesn't know]"

    def words(self, message: msgspec.Struct) -> str:
        if isinstance(message, Forward):
            return f"forward {self._proposals(message.envelopes)}"
        if isinstance(message, Steal):
            return f"steal for {message.slots} slots"
        if isinstance(message, Gives):
            return f"gives {message.count}"
        return super().words(message)

    def _proposals(self, envelopes: tuple[Envelope, ...]) -> str:
        return f"[{', '.join(command_words(e.command, self.jobs) for e in envelopes)}]"

    def on_committed(self, batch: Committed) -> None:
        if batch.index <= self._book.applied_index:
            return
        first = self._book.command_index + 1
        outcomes, events = self._book.apply(batch)
        self._dumps[batch.index] = repr(self._book.dump())
        applied = enumerate(zip(batch.envelopes, outcomes, strict=True), start=first)
        for index, (envelope, outcome) in applied:
            what = command_words(envelope.command, self.jobs)
            self.say(f"#{index} {what}: {self.outcome_words(outcome)}")
            for stamped in events:
                text = event_words(stamped.event, self.jobs) if stamped.index == index else ""
                if text:
                    self.say(f"   {text}")

    def check_state(self, peer: str, machine: Machine) -> None:
        known = self._dumps.get(machine.applied_index)
        if known is not None and known != repr(machine.dump()):
            self.say(f"!! {peer} has another state than others after entry {machine.applied_index}")
        for job in machine.jobs.values():
            job.check()

    def batch_words(self, batch: Batch, tasks: TaskSet) -> str:
        attempt = "" if batch.attempt == 1 else f", attempt {batch.attempt}"
        return f"{self.jobs.name(batch.job)} {tasks} under {batch.grant}{attempt}"

    def outcome_words(self, outcome: Outcome) -> str:
        return outcome_words(outcome, self.jobs)

    def go_on(self, actors: Sequence[Peer]) -> bool:
        """Stopped tasks end."""
        ended = False
        for actor in actors:
            if actor.alive and not actor.paused:
                ended |= actor.end_stopped()
        return ended

    # --- commands ---

    def do_cluster(self, words: Words) -> None:
        """cluster PEER ... [slots N] [level N]: of features that they know, 1 by default"""
        names = list(words)
        for option in ("slots", "level"):
            if option in names:
                at = names.index(option)
                setattr(self, f"_{option}", int(names[at + 1]))
                del names[at : at + 2]
        super().do_cluster(names)
        self.do_timeout(words[:1])
        self.do_settle([])

    def do_submit(self, words: Words) -> None:
        """submit JOB TASKS at PEER [retries N] [cpus N]"""
        name, tasks, _, peer, *options = words
        given = dict(zip(options[::2], map(int, options[1::2]), strict=True))
        if given.keys() - {"retries", "cpus"}:
            raise ScriptError("a job has retries and cpus")
        spec = JobSpec(
            name=name,
            tasks=TaskSet.parse(tasks),
            work=ProgramWork(("task",)),
            retries=given.get("retries", 0),
            cpus=given.get("cpus", 1),
        )
        self.jobs.specs.setdefault(name, spec)
        self._ask(peer, SubmitJob(self.jobs.id(name), spec))

    def do_cancel(self, words: Words) -> None:
        """cancel JOB at PEER"""
        self._ask(words[2], Cancel(self.jobs.id(words[0])))

    def do_forget(self, words: Words) -> None:
        """forget JOB at PEER"""
        self._ask(words[2], Forget(self.jobs.id(words[0])))

    def do_pin(self, words: Words) -> None:
        """pin JOB at PEER"""
        self._ask(words[2], Pin(self.jobs.id(words[0]), pinned=True))

    def do_retry(self, words: Words) -> None:
        """retry JOB at PEER [TASKS]"""
        tasks = TaskSet.parse(words[3]) if len(words) > 3 else EMPTY
        self._ask(words[2], Retry(self.jobs.id(words[0]), self.jobs.specs[words[0]], tasks))

    def do_drain(self, words: Words) -> None:
        """drain PEER at PEER [once]: it is granted nothing more."""
        mode = DrainMode.ONCE if "once" in words else DrainMode.ON
        self._ask(words[2], Drain(self.actor(words[0]).id, mode))

    def do_undrain(self, words: Words) -> None:
        """undrain PEER at PEER"""
        self._ask(words[2], Drain(self.actor(words[0]).id, DrainMode.OFF))

    def do_place(self, words: Words) -> None:
        """place JOB TASKS on PEER at PEER: as no coordinator would."""
        job, tasks, _, peer, _, at = words
        owner = self.actor(peer)
        incarnation = owner.scheduler.info.incarnation
        self._ask(at, Place(self.jobs.id(job), TaskSet.parse(tasks), owner.id, incarnation))

    def do_generation(self, words: Words) -> None:
        """generation NUMBER at PEER: all that was granted before is over. No cluster that works
        proposes it; what goes on from its disks begins so."""
        actor = self.actor(words[2])
        self._ask(words[2], NewGeneration(int(words[0]), actor.id))

    def _ask(self, peer: str, command: Command) -> None:
        actor = self.alive(peer)
        question = command_words(command, self.jobs)
        self.act(actor, lambda: actor.ask(command, question))

    def do_leave(self, words: Words) -> None:
        """leave PEER: it is about to be stopped cleanly."""
        actor = self.alive(words[0])
        self.act(actor, actor.leave)

    def do_look(self, words: Words) -> None:
        """look PEER ...: their schedulers look at the time."""
        for name in words:
            actor = self.alive(name)
            self.act(actor, actor.look)

    def do_finish(self, words: Words) -> None:
        """finish PEER JOB TASKS [CAUSE] [TEXT]: tasks that it runs end."""
        actor, tasks = self.alive(words[0]), TaskSet.parse(words[2])
        cause = Cause(words[3]) if len(words) > 3 else Cause.OK
        text = words[4] if len(words) > 4 else ""
        job = self.jobs.id(words[1])
        ended: list[TaskSet] = []
        self.act(actor, lambda: ended.append(actor.finish(job, tasks, cause, text)))
        if ended and ended[0] != tasks:
            raise ScriptError(f"{actor.name} runs of these only {ended[0] or 'nothing'}")

    def do_jobs(self, words: Words) -> None:
        """jobs [PEER ...]: what they know of each job; equal lines are told once."""
        seen: dict[str, list[str]] = {}
        for actor in self.some(words):
            if actor.alive:
                for line in _job_lines(actor.scheduler.machine, self.jobs):
                    seen.setdefault(line, []).append(actor.name)
        for line, names in seen.items():
            self.say(f"{' '.join(names)}: {line}")

    def do_work(self, words: Words) -> None:
        """work [PEER ...]: what they hold: what runs, what waits, what is on its way."""
        for actor in self.some(words):
            if not actor.alive:
                self.say(f"{actor.name}: down")
                continue
            held = actor.scheduler.owner.held()
            parts = [f"{self.jobs.name(j)} {t} under {g}" for (j, g), t in held.items() if t]
            self.say(f"{actor.name}: {', '.join(parts) or 'nothing'}")

    def do_future(self, words: Words) -> None:
        """future LEADER: it proposes a command that only a later version knows."""
        actor = self.alive(words[0])
        payload = msgspec.msgpack.encode([[words[0], 1, [99, "fly"]]])
        self.act(actor, lambda: actor.future(payload))


def _job_lines(machine: Machine, jobs: Jobs) -> list[str]:
    lines = []
    for job in machine.jobs.values():
        parts = [
            f"{what} {tasks}"
            for what, tasks in (
                ("waiting", job.waiting),
                ("succeeded", job.succeeded),
                ("failed", job.failed),
                ("cancelled", job.cancelled),
            )
            if tasks
        ]
        for held in job.grants.values():
            gone = "" if machine.is_live(held.peer, held.incarnation) else " (down)"
            parts.append(f"{held.peer}/{held.incarnation}{gone} has {held.tasks} by {held.grant}")
        refused = f"; {job.results_refused} refused" if job.results_refused else ""
        lines.append(f"{jobs.name(job.id)} {job.state}: {', '.join(parts)}{refused}")
    return lines
