"""Settings of the property tests: see tests/model/conftest.py. Chunks of a few bytes, so that small
blobs have many, and a list of them beside them."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from p2psched.model import digests
from p2psched.store import blob_reads

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True, scope="package")
def _short_chunks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "CHUNK_BYTES", 64)
        patch.setattr(blob_reads, "LISTED_CHUNKS_MIN", 3)
        yield
