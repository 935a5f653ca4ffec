"""`python -m bench.compare A.json B.json`: what is more than 10 % worse in B than in A.

Compare records of one machine only; and since a machine drifts, best two that were made one after
the other. Exits with 1 if there is a regression.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.stats import TOLERANCE, Change, Figures, compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    changes = compare(read(options.before), read(options.after))
    for line in describe(changes):
        print(line)
    sys.exit(any(change.is_regression for change in changes))


def read(path: Path) -> Figures:
    """The figures of a record. Raises ValueError if it is none."""
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or not isinstance(record.get("figures"), dict):
        raise ValueError(f"{path} is no record of a benchmark: it has no figures")
    found: Figures = record["figures"]
    return found


def describe(changes: list[Change]) -> list[str]:
    bad = [change for change in changes if change.is_regression]
    lines = []
    for change in bad:
        sure = "" if change.is_beyond_spread else ", but their ranges overlap"
        lines.append(
            f"{change.name}: {change.before.median:,.2f} -> {change.after.median:,.2f}, "
            f"{change.worse_by:.0%} worse{sure}"
        )
    lines.append(f"{len(bad)} of {len(changes)} figures are more than {TOLERANCE:.0%} worse")
    return lines


if __name__ == "__main__":
    main()
