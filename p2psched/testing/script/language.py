"""Reads a script, runs it, and writes it again with the output that it has now.

    # What it shows, and why.

    cluster a b c
    timeout a
    ----
    a is pre-candidate in term 1
    ...

Commands, a line of four dashes, what happened; then an empty line. A `#` begins a remark, which
stays where it is. The first command may be `stage consensus` (the default) or `stage ledger`.
"""

from __future__ import annotations

import difflib
from typing import Final

import msgspec

from p2psched.testing.script.actor import Actor
from p2psched.testing.script.consensus import ConsensusStage
from p2psched.testing.script.errors import ScriptError
from p2psched.testing.script.ledger_stage import LedgerStage
from p2psched.testing.script.stage import Stage

DASHES: Final = "----"


class Step(msgspec.Struct):
    """Some commands and what they gave; or remarks only."""

    line: int
    text: list[str]  # commands and remarks, as they stand
    output: list[str]

    @property
    def commands(self) -> list[str]:
        return [line for line in self.text if not line.startswith("#")]


def parse(source: str) -> list[Step]:
    """Raises ScriptError where a command has no `----` behind it."""
    steps: list[Step] = []
    lines = source.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        start = at
        text: list[str] = []
        while at < len(lines) and lines[at].strip() and lines[at] != DASHES:
            text.append(lines[at])
            at += 1
        output: list[str] = []
        has_dashes = at < len(lines) and lines[at] == DASHES
        if has_dashes:
            at += 1
            while at < len(lines) and lines[at].strip():
                output.append(lines[at])
                at += 1
        step = Step(start + 1, text, output)
        if bool(step.commands) != has_dashes:
            raise ScriptError(f"line {step.line}: commands, then {DASHES}, then what happened")
        steps.append(step)
    return steps


def render(steps: list[Step]) -> str:
    """The script as text; `parse` gives the same steps again."""
    blocks = ["\n".join([*s.text, *([DASHES, *s.output] if s.commands else [])]) for s in steps]
    return "\n\n".join(blocks) + "\n"


def play(source: str) -> str:
    """Run a script: the same text with the output that it has now. Raises ScriptError."""
    text, error = play_on(source)
    if error is not None:
        raise error
    return text


def play_on(source: str) -> tuple[str, ScriptError | None]:
    """Run a script as far as it goes. A command that can't be performed ends it: its error stands
    in the output, and is returned."""
    steps = parse(source)
    stage: Stage[Actor] | None = None
    for position, step in enumerate(steps):
        output: list[str] = []
        for command in step.commands:
            try:
                if command.split()[0] == "stage":
                    stage = _stage(command, stage)
                else:
                    stage = stage or _stage("stage consensus", None)
                    output += stage.run(command)
            except (ScriptError, ValueError, IndexError) as exc:
                step.output = [*output, f"error: {command}: {exc}"]
                told = "\n".join(step.output)
                where = f"in the commands from line {step.line} on"
                return render(steps[: position + 1]), ScriptError(f"{where}\n{told}")
        step.output = output or ([NOTHING] if step.commands else [])
    return render(steps), None


NOTHING: Final = "(nothing)"
STAGES: Final[dict[str, type[Stage[Actor]]]] = {
    "consensus": ConsensusStage,  # type: ignore[dict-item]  # a stage of some kind of peer
    "ledger": LedgerStage,  # type: ignore[dict-item]
}


def _stage(command: str, before: Stage[Actor] | None) -> Stage[Actor]:
    _, name = command.split()
    if before is not None:
        raise ScriptError("the stage comes first")
    if name not in STAGES:
        raise ScriptError(f"stages are {', '.join(STAGES)}")
    return STAGES[name]()


def difference(expected: str, actual: str, name: str) -> str:
    """What has changed, with the commands around it; empty if nothing has."""
    lines = difflib.unified_diff(
        expected.splitlines(),
        actual.splitlines(),
        f"{name} as it stands",
        f"{name} as it runs now",
        n=6,
        lineterm="",
    )
    return "\n".join(lines)
