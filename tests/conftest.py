"""Options of all tests."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

# Of property tests: the same examples at every run, unless more are asked for. No deadline: a
# loaded machine must not fail a test. `long` looks at new examples every time.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the output that scenario scripts have now: read the diff",
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("smoke") and not item.get_closest_marker("process"):
        raise pytest.UsageError(f"{item.nodeid}: `smoke` is for tests with `process`")


def pytest_collection_finish() -> None:
    """Thousands of tests live until the end: whoever counts garbage need not look at them."""
    gc.collect()
    gc.freeze()
