"""One cluster for all tests here that are given `rig`; each finds it whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import LiveCluster
from tests.integration.rig import Rig, running_cluster


@pytest.fixture(scope="session")
def _shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as rig:
        yield rig


@pytest.fixture
def rig(_shared_rig: Rig) -> Rig:
    asyncio.run(_shared_rig.heal())
    return _shared_rig


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    """No peer yet, and none that others use."""
    with LiveCluster(tmp_path) as cluster:
        yield cluster
