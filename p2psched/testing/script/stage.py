"""What all scripts share: peers, the messages between them, and one clock that a script moves.

A message waits until it is delivered, dropped or doubled by name, or until `settle` delivers
whatever is under way, oldest first. Nothing here is drawn: one script gives one output.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

import msgspec

from p2psched.core.raft.state import encode_membership
from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership
from p2psched.testing.script.actor import Actor
from p2psched.testing.script.errors import ScriptError
from p2psched.testing.script.mail import Mail
from p2psched.testing.script.referee import Referee
from p2psched.testing.script.words import message_words, usual_address

BROKEN: Final = "!!"  # begins a line that says that a promise is broken
TOPICS: Final = ("arrivals", "messages", "writes", "roles")  # what can be hidden

Words = Sequence[str]
A = TypeVar("A", bound=Actor)


class Stage(ABC, Generic[A]):
    """Finds the command that a line of a script begins with, and is the world of its peers."""

    shown_at_first: tuple[str, ...] = TOPICS

    def __init__(self) -> None:
        self.now_ms = 0
        self.actors: dict[str, A] = {}
        self.mail = Mail(self.words)
        self.referee = Referee(self.say)
        self._voters: list[str] = []
        self._shown = set(self.shown_at_first)
        self._lines: list[str] = []

    # --- for the interpreter ---

    def run(self, command: str) -> list[str]:
        """Perform one command; what happened. Raises ScriptError."""
        words = shlex.split(command)
        shown = set(self._shown)
        if words and words[0] == "quietly":
            self._shown -= {"arrivals", "messages", "writes"}
            words = words[1:]
        act = getattr(self, "do_" + words[0].replace("-", "_"), None) if words else None
        if act is None:
            raise ScriptError(f"no such command: {command!r}")
        try:
            act(words[1:])
        finally:
            if command.startswith("quietly"):
                self._shown = shown
        lines, self._lines = self._lines, []
        return lines

    # --- for the peers ---

    def say(self, line: str, topic: str = "") -> None:
        if not topic or topic in self._shown:
            self._lines.append(line)

    def post(self, sender: str, to: str, message: msgspec.Struct) -> None:
        self.referee.on_said(sender, to, message)
        lost = (sender, to) in self.mail.cut or to not in self.actors
        words = self.words(message)
        self.say(f"{sender} -> {to}  {words}" + (", lost" if lost else ""), "messages")
        if not lost:
            self.mail.post(sender, to, message)

    def founding(self, name: str) -> tuple[HardState, list[Entry]]:
        """What an empty disk starts with: who votes, or nothing for who joins later."""
        if name not in self._voters:
            return HardState(), []
        voters = tuple(member_of(peer) for peer in sorted(self._voters))
        payload = encode_membership(Membership(voters))
        return HardState(1, None), [Entry(1, 1, EntryKind.MEMBERSHIP, 0, 0, payload)]

    # --- of the kind of stage ---

    @abstractmethod
    def make(self, name: str) -> A: ...

    @abstractmethod
    def payload(self, data: bytes) -> str:
        """What an entry of commands holds."""

    def words(self, message: msgspec.Struct) -> str:
        return message_words(message, self.payload)

    # --- who ---

    def actor(self, name: str) -> A:
        if name not in self.actors:
            raise ScriptError(f"no peer {name!r}: there are {', '.join(self.actors)}")
        return self.actors[name]

    def alive(self, name: str) -> A:
        actor = self.actor(name)
        if not actor.alive:
            raise ScriptError(f"{name} is not running")
        return actor

    def some(self, words: Words) -> list[A]:
        """The peers named, or all."""
        return [self.actor(name) for name in words] or list(self.actors.values())

    @contextmanager
    def watching(self, actor: A) -> Iterator[None]:
        """What a core refuses to go on with ends its process, and nothing else."""
        try:
            yield
        except P2PSchedError as exc:
            self.say(f"{actor.name} stops: {exc}")
            actor.die(power_lost=False)
        except (AssertionError, OSError) as exc:
            self.say(f"{BROKEN} {actor.name} stops: {str(exc) or type(exc).__name__}")
            actor.die(power_lost=False)

    def act(self, actor: A, what: Callable[[], None]) -> None:
        with self.watching(actor):
            what()


def member_of(name: str, address: str = "") -> Member:
    return Member(PeerId(name), name, address or usual_address(name))
