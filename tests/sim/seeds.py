"""How many seeds a test looks at: a few at each run, and more of them in `make test-rest`.

The few are those that show what the test wants to see. More find what nobody thought of: that is
what `p2psched sim run` is for, and the tests marked `wide` or `long`.
"""

from __future__ import annotations

import pytest


def looking_at(few: range, more: range) -> pytest.MarkDecorator:
    """Two runs of a test that takes `seeds`."""
    many = pytest.param(more, marks=pytest.mark.wide, id=f"{more.start}-{more.stop - 1}")
    return pytest.mark.parametrize(
        "seeds", [pytest.param(few, id=f"{few.start}-{few.stop - 1}"), many]
    )
