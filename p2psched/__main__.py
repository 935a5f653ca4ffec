"""`python -m p2psched`: the same as the command `p2psched`."""

from __future__ import annotations

from p2psched.cli.app import main

if __name__ == "__main__":
    main()
