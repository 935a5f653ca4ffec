"""Messages under way between the peers of a stage, until a script says what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from p2psched.testing.script.errors import ScriptError
from p2psched.testing.sim_items import WireMessage, decode_wire, encode_wire

Link = tuple[str, str]  # from, to
Describe = Callable[[msgspec.Struct], str]


class Letter(msgspec.Struct):
    """A message, as bytes: what can't be written down can't be sent."""

    sender: str
    to: str
    data: bytes

    @property
    def message(self) -> WireMessage:
        message: WireMessage = decode_wire(self.data)
        return message


class Mail:
    """Letters in the order that they were sent. Nothing leaves by itself."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self.flying: list[Letter] = []
        self.cut: set[Link] = set()
        self.held: set[Link] = set()

    def post(self, sender: str, to: str, message: msgspec.Struct) -> None:
        self.flying.append(Letter(sender, to, encode_wire(message)))

    def next_of(self, names: Collection[str], asleep: Collection[str]) -> Letter | None:
        """The oldest between these peers that nothing holds up; taken out."""
        for letter in self.flying:
            link = (letter.sender, letter.to)
            if link not in self.held and letter.to not in asleep and {*link} <= {*names}:
                self.flying.remove(letter)
                return letter
        return None

    def chosen(self, words: Sequence[str]) -> list[Letter]:
        """`FROM->TO`, `*` for anybody; then nothing (the first), `last`, `all`, or a part of what
        is said, with `all` before it or not. Raises ScriptError if there is none."""
        sender, arrow, to = words[0].partition("->")
        if not arrow:
            raise ScriptError(f"FROM->TO, '*' for anybody, not {words[0]!r}")
        which = " ".join(words[1:])
        every = which == "all" or which.startswith("all ")
        text = which.removeprefix("all").strip() if every else which
        found = [
            letter
            for letter in self.flying
            if sender in ("*", letter.sender) and to in ("*", letter.to)
        ]
        if text not in ("", "last"):
            found = [letter for letter in found if text in self._describe(letter.message)]
        if not found:
            raise ScriptError(f"nothing of the kind is under way: {' '.join(words)}")
        return found if every else found[-1:] if text == "last" else found[:1]


def links_of(words: Sequence[str], peers: Collection[str]) -> set[Link]:
    """`PEER`: all links of it. `A->B`: one way. `A-B`: both ways."""
    links: set[Link] = set()
    for word in words:
        one, dash, other = word.partition("-")
        other = other.removeprefix(">")
        if unknown := {one, other or one} - {*peers}:
            raise ScriptError(f"no such peer: {', '.join(sorted(unknown))}")
        if not dash:
            links |= {(one, peer) for peer in peers if peer != one}
            links |= {(peer, one) for peer in peers if peer != one}
        else:
            links |= {(one, other)} if "->" in word else {(one, other), (other, one)}
    return links
