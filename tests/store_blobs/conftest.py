"""Chunks of a few bytes, so that small blobs have many, and a list of them beside them."""

from __future__ import annotations

import pytest

from p2psched.model import digests
from p2psched.store import blob_reads


@pytest.fixture(autouse=True, scope="package")
def _short_chunks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "CHUNK_BYTES", 64)
        patch.setattr(blob_reads, "LISTED_CHUNKS_MIN", 3)
        yield
