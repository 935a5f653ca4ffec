"""The script that the peer executes, with the interpreter that runs users' functions.

It may be another interpreter than the peer's, one that has neither p2psched nor any package. So
this file and what it loads use the standard library only, and are loaded under a private name:
the folder of the peer's packages never gets on `sys.path`, and a user's own `worker` module is
not ours. Arguments: the descriptor of the socket to the peer, and the folder for scratch files.
"""

from __future__ import annotations

import importlib
import os
import sys
import types

_ROOT = "_p2psched_host"
OLDEST = (3, 11)


def main() -> None:
    if sys.version_info < OLDEST:
        raise SystemExit(
            f"{sys.executable} is Python {sys.version.split()[0]}; workers need 3.11 or newer"
        )
    # Like `python -c`: a user's modules are found where the peer was started, ours are not found.
    sys.path[:1] = [os.getcwd()]  # noqa: PTH109 - pathlib is not worth its import time here
    package = types.ModuleType(_ROOT)
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    package.__path__ = [os.path.dirname(os.path.dirname(here))]  # noqa: PTH120
    sys.modules[_ROOT] = package
    forker = importlib.import_module(f"{_ROOT}.run.host.forker")
    forker.main(int(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
