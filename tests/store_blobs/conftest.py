"""Settings of the property tests: see tests/model/conftest.py. Chunks of a few bytes, so that small
blobs have many."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from p2psched.model import digests

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True, scope="package")
def _short_chunks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "CHUNK_BYTES", 64)
        yield
