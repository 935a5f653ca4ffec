"""One cluster of three peers for all tests of a module that only look and submit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import LiveCluster


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("live")) as cluster:
        for name in "abc":
            cluster.start(name)
        yield cluster


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """No peer yet."""
    with LiveCluster(tmp_path_factory.mktemp("empty")) as cluster:
        yield cluster
