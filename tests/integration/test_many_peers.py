"""Fifty real peers on one machine, within two GiB."""

from __future__ import annotations

import asyncio

import pytest

from bench import followers

pytestmark = [pytest.mark.process, pytest.mark.long]

MIB_MAX = 2_048


def test_fifty_peers_work_within_two_gib() -> None:
    found = asyncio.run(followers.measure())
    assert found["idle_pss_mib"] < MIB_MAX, found
    assert found["functions_pss_mib"] < MIB_MAX, found
    assert found["programs_pss_mib"] < MIB_MAX, found
    assert found["settled_pss_mib"] < MIB_MAX, found
    assert found["functions_peers"] == followers.PEERS, found
    assert found["programs_peers"] == followers.PEERS, found
    assert found["fed_by_leader"] == 0, found
