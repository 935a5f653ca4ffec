"""Starts for a static group that are refused before anything is touched, and how it is named."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from p2psched.model.config import Config
from p2psched.model.errors import Damaged, P2PSchedError, Refused, UsageError
from p2psched.peer import static_group
from p2psched.peer.static_group import check_group, cluster_of, group_of
from p2psched.store.folder import DataFolder

GROUP = ("127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003")
CONFIG = Config(
    name="a",
    data="/nowhere",
    listen=GROUP[0],
    slots=1,
    python="python3",
    runtime_dir="/nowhere",
    ledger="raftos",
    group=GROUP,
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether raftos is here or not."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: static_group.RAFTOS_VERSION)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"ledger": None}, UsageError, "--group is for --ledger raftos"),
        ({"join": (GROUP[1],)}, UsageError, "static group"),
        ({"votes": False}, UsageError, "all peers of a raftos ledger vote"),
        ({"group": ("one.example:7001",)}, UsageError, "numeric addresses"),
        ({"group": (GROUP[0], GROUP[0])}, UsageError, "each once"),
        ({"listen": "127.0.0.1:7009"}, UsageError, "is not among --group"),
    ],
)
def test_a_start_that_can_not_work_is_refused(
    changes: dict[str, object], error: type[P2PSchedError], says: str
) -> None:
    check_group(CONFIG)
    with pytest.raises(error, match=says):
        check_group(msgspec.structs.replace(CONFIG, **changes))


def test_without_the_package_it_says_how_to_install_it() -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    for version, found in ((missing, "none"), (lambda name: "0.2.5", "0.2.5")):
        with (
            patch.object(importlib.metadata, "version", version),
            pytest.raises(Refused, match=f"{found} is installed: run `pip install --no-deps"),
        ):
            check_group(CONFIG)


def test_the_group_is_kept_and_may_be_left_out_later(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "a", create=True) as folder:
        assert group_of(msgspec.structs.replace(CONFIG, ledger=None, group=()), folder) == ()
        with pytest.raises(UsageError, match="needs --group"):
            group_of(msgspec.structs.replace(CONFIG, group=()), folder)
        assert group_of(CONFIG, folder) == GROUP
        later = msgspec.structs.replace(CONFIG, ledger=None, group=())
        assert group_of(later, folder) == GROUP
        (folder.path / static_group.GROUP_FILE).write_bytes(b"[")
        with pytest.raises(Damaged, match="put it back"):
            group_of(later, folder)


def test_a_folder_of_the_embedded_engine_is_not_given_to_another(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "a", create=True) as folder:
        folder.set_cluster(cluster_of(("127.0.0.1:1",)))
        with pytest.raises(Refused, match="of the embedded engine"):
            group_of(CONFIG, folder)


def test_a_group_is_one_cluster_in_whatever_order_it_is_named() -> None:
    assert cluster_of(GROUP) == cluster_of(GROUP[::-1]) != cluster_of(GROUP[:2])
