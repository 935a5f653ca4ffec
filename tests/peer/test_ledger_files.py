"""The ledger at start: founded once, never again; gone means damaged."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from p2psched.model.errors import Damaged
from p2psched.model.ids import ClusterId, PeerId, new_id
from p2psched.model.raft import HardState, Member
from p2psched.peer.ledger_files import open_log
from p2psched.store.folder import DataFolder
from p2psched.store.marker import MARKER

VOTED = HardState(3, PeerId("c" * 32))
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


def damaged(path: Path, *, others: bool) -> bytes:
    """The folder of a peer that stopped, with a flipped bit in its log; what its log held."""
    with DataFolder.open(path, create=True) as folder:
        folder.begin_founding(CLUSTER)
        store, _ = open_log(folder, member(folder), founded_ms=0)
        store.write(hard_state=VOTED, truncate_from=None, entries=[])
        store.sync()
        store.close()
        if others:
            folder.address_book.save({PeerId("b" * 32): ("b", "127.0.0.1:2")})
        segment = folder.ledger_path / "log-00000001.seg"
        data = bytearray(segment.read_bytes())
        data[100] ^= 1
        segment.write_bytes(bytes(data))
        return bytes(data)


def test_a_damaged_log_of_a_peer_with_others_is_set_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = damaged(tmp_path / "a", others=True)
    for _ in range(2):
        with DataFolder.open(tmp_path / "a", create=False) as folder:
            store, found = open_log(folder, member(folder), founded_ms=0)
            store.close()
            assert found.lost is not None
            assert (found.lost.file, found.lost.offset) == ("log-00000001.seg", 64)
            assert (found.entries, found.hard_state) == ([], VOTED)
            aside = folder.ledger_path / "damaged-log-00000001.seg"
            assert aside.read_bytes() == data
    told = [record for record in caplog.records if record.msg == "log-damaged"]
    assert [(record.file, record.offset) for record in told] == [  # type: ignore[attr-defined]
        ("log-00000001.seg", 64)
    ] * 2  # fields of `extra`


def test_a_damaged_log_of_a_peer_alone_stops_it(tmp_path: Path) -> None:
    damaged(tmp_path / "a", others=False)
    with (
        DataFolder.open(tmp_path / "a", create=False) as folder,
        pytest.raises(Damaged, match=r"log-00000001\.seg is damaged at byte 64") as raised,
    ):
        open_log(folder, member(folder), founded_ms=None)
    assert raised.value.exit_code == 6


def test_a_tail_that_is_cut_is_told_with_what_was_vouched_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DataFolder.open(tmp_path / "a", create=True) as folder:
        folder.begin_founding(CLUSTER)
        open_log(folder, member(folder), founded_ms=0)[0].close()
        open_log(folder, member(folder), founded_ms=None)[0].close()
        with (folder.ledger_path / "log-00000001.seg").open("ab") as segment:
            segment.write(b"half a record")
        _, found = open_log(folder, member(folder), founded_ms=None)
    assert found.torn_bytes == 13
    (cut,) = [record for record in caplog.records if record.msg == "log-tail-cut"]
    assert vars(cut) | {"bytes": 13, "last_index": 1, "synced_index": 1} == vars(cut)


def test_a_lost_marker_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with DataFolder.open(tmp_path / "a", create=True) as folder:
        folder.begin_founding(CLUSTER)
        open_log(folder, member(folder), founded_ms=0)[0].close()
        open_log(folder, member(folder), founded_ms=None)[0].close()
        (folder.ledger_path / MARKER).write_bytes(b"")
        open_log(folder, member(folder), founded_ms=None)[0].close()
        open_log(folder, member(folder), founded_ms=None)[0].close()
    told = [record for record in caplog.records if record.msg == "log-marker-lost"]
    assert len(told) == 1
    assert told[0].levelname == "CRITICAL"


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
