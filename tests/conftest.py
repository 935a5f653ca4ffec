"""Options of all tests."""

from __future__ import annotations

import gc

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the output that scenario scripts have now: read the diff",
    )


def pytest_collection_finish() -> None:
    """Thousands of tests live until the end: whoever counts garbage need not look at them."""
    gc.collect()
    gc.freeze()
