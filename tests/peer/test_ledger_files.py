"""The ledger at start: founded once, never again; gone means damaged."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from p2psched.model.errors import Damaged
from p2psched.model.ids import ClusterId, PeerId, new_id
from p2psched.model.raft import Member
from p2psched.peer.ledger_files import open_log
from p2psched.store.folder import DataFolder

CLUSTER = ClusterId(new_id(random.Random(1)))


def member(folder: DataFolder) -> Member:
    return Member(PeerId(folder.identity.peer), "a", "127.0.0.1:1")


def test_a_cluster_is_founded_once_and_keeps_its_id_over_a_crash(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "a", create=True) as folder:
        folder.begin_founding(CLUSTER)
    with DataFolder.open(tmp_path / "a", create=False) as folder:  # crashed in between
        assert folder.is_founding
        assert folder.identity.cluster == CLUSTER
        store, recovered = open_log(folder, member(folder), founded_ms=0)
        store.close()
        assert len(recovered.entries) == 1
    with DataFolder.open(tmp_path / "a", create=False) as folder:
        assert not folder.is_founding
        store, again = open_log(folder, member(folder), founded_ms=None)
        store.close()
        assert again.entries == recovered.entries


def test_a_peer_whose_ledger_is_gone_does_not_vote_again(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "a", create=True) as folder:
        folder.begin_founding(CLUSTER)
        open_log(folder, member(folder), founded_ms=0)[0].close()
        folder.next_incarnation()
        shutil.rmtree(folder.ledger_path)
    with (
        DataFolder.open(tmp_path / "a", create=False) as folder,
        pytest.raises(Damaged, match="join as a new peer"),
    ):
        open_log(folder, member(folder), founded_ms=None)
