"""The door of the command line: exit codes, and one line for every error.

It refuses to show a traceback for anything that a user can cause. Invariant: what a script reads
on stdout is the answer and nothing else; errors and notes go to stderr.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from p2psched.cli.output import print_error
from p2psched.model.errors import P2PSchedError

EXIT_USAGE: Final = 2
EXIT_BUG: Final = 70  # EX_SOFTWARE: none of the codes that people are promised
EXIT_INTERRUPTED: Final = 130
EXIT_OUTPUT: Final = 74  # as sysexits.h has it: input or output failed
EXIT_PIPE: Final = 141  # as a shell reports a program that wrote to a closed pipe

_NOWHERE: Final = logging.NullHandler()
_PARSER_SAYS: Final = "Value error, "  # the parser's own words, in front of ours
_OUTPUT_FAULTS: Final = frozenset({errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT})


def main() -> None:
    """The entry point of the command `p2psched`."""
    _fill_closed_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line. Returns its exit code."""
    json = wants_json(arguments)
    # What the client's connections log is in the errors too; only `start` sends a log anywhere.
    logging.getLogger("p2psched").addHandler(_NOWHERE)
    try:
        serving = os.environ.pop("P2PSCHED_SERVING", None)
        if serving is not None:  # the second life of `p2psched start`
            from p2psched.cli.serve import serve  # noqa: PLC0415

            serve(serving)
            return 0
        # Here and not above: Ctrl-C while the commands load must end as quietly as later.
        from p2psched.cli import commands  # noqa: PLC0415

        code = commands.run(arguments)
        sys.stdout.flush()
    except P2PSchedError as error:
        return print_error(error.code, str(error), error.exit_code, json=json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except OSError as error:
        if sys.stdout is not None and error.errno in _OUTPUT_FAULTS:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            text = f"can't write the output: {error.strerror}"
            return print_error("output", text, EXIT_OUTPUT, json=json)
        return _other(error, json=json)
    except SystemExit as end:  # completion scripts end like this, and what a parser wrote to nobody
        if isinstance(end.__context__, BrokenPipeError):
            return _unread()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:  # noqa: BLE001 (the last line of defence: one way out for all)
        return _other(error, json=json)
    return code if isinstance(code, int) else 0


def _fill_closed_streams() -> None:
    """Who closed stdin or stdout (`>&-`) finds out at its first use, as from other programs. And no
    socket of ours gets its number."""
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _unread() -> int:
    """Whoever read our output has enough; the interpreter must not flush it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return EXIT_PIPE


def wants_json(arguments: Sequence[str]) -> bool:
    """True if a command line asks for JSON. Needed before it is parsed: it may be a wrong one."""
    own = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    following = dict(pairwise(own))
    return (
        "--output=json" in own
        or "-ojson" in own
        or "json" in {following.get("-o"), following.get("--output")}
    )


def _other(error: Exception, *, json: bool) -> int:
    """A usage error of the parser, whichever library it is built on; or a bug of ours."""
    if type(error).__name__ == "Abort":
        return EXIT_INTERRUPTED
    describe = getattr(error, "format_message", None)
    if describe is None:
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {error}: this is a bug of p2psched, please report it"
        return print_error("bug", text, EXIT_BUG, json=json)
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "p2psched")
    message = str(describe()).rstrip(".").replace(_PARSER_SAYS, "")
    if re.match(r"-\d", str(getattr(error, "option_name", ""))):
        message += ": a value that begins with - comes behind --"
    see = " See" if message.endswith("?") else ": see"
    return print_error("usage", f"{message}{see} `{path} --help`", EXIT_USAGE, json=json)
