"""Where a client connects when it is told little."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2psched.client.find import find_peers
from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.ids import ClusterId, PeerId
from p2psched.store.records import Record, write_record


def record(folder: Path, name: str, cluster: str, port: int) -> str:
    """A peer of this process: alive, with a secret of its own."""
    secret = folder / f"secret-{name}"
    secret.write_text(cluster[0] * 64)
    secret.chmod(0o600)
    address = f"127.0.0.1:{port}"
    made = Record(
        peer=PeerId(name * 32),
        cluster=ClusterId(cluster * 32),
        name=name,
        address=address,
        pid=os.getpid(),
        data_folder=str(folder),
        secret_path=str(secret),
        started_ms=port,
    )
    write_record(folder / "run", made)
    return address


def find(folder: Path, address: str | None = None) -> tuple[list[str], bytes]:
    return find_peers(address, secret_file=None, runtime_dir=folder / "run")


def test_all_local_peers_of_the_one_cluster_are_tried(tmp_path: Path) -> None:
    addresses = [record(tmp_path, name, "c", port) for name, port in (("a", 1), ("b", 2))]
    found, secret = find(tmp_path)
    assert (sorted(found), secret) == (addresses, bytes.fromhex("c" * 64))


def test_between_two_clusters_nobody_guesses(tmp_path: Path) -> None:
    record(tmp_path, "a", "c", 1)
    other = record(tmp_path, "b", "d", 2)
    with pytest.raises(UsageError, match="several clusters"):
        find(tmp_path)
    assert find(tmp_path, other) == ([other], bytes.fromhex("d" * 64))


def test_what_is_not_known_here_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="p2psched start"):
        find(tmp_path)
    with pytest.raises(Refused, match="--secret-file"):
        find(tmp_path, "127.0.0.1:9")
