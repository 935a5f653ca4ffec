"""The demo's whole grid in one process: `python -m p2psched.demo.alone [--short]`.

Writes each score as a line of JSON as soon as it has it. What comes out is what a cluster's scores
must equal.
"""

from __future__ import annotations

import sys

import msgspec

from p2psched.demo.digits import Score, grid, train


def encode(score: Score) -> bytes:
    """One line; `decode` gives an equal score back."""
    return msgspec.json.encode(score) + b"\n"


def decode(line: bytes) -> Score:
    """Raises ValueError."""
    return msgspec.json.decode(line, type=Score)


def main(*, short: bool) -> None:
    """Print the scores of the grid, in its order."""
    for point in grid(short=short):
        sys.stdout.buffer.write(encode(train(point)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(short="--short" in sys.argv[1:])
