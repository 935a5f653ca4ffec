"""The data folder: identity, lock and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2psched.model import ids
from p2psched.model.errors import Damaged, NotFound, Refused, UsageError
from p2psched.model.ids import ClusterId, PeerId
from p2psched.store import files
from p2psched.store.address_book import ADDRESSES_MAX
from p2psched.store.folder import DataFolder, default_data_folder, set_aside

CLUSTER = ClusterId("a" * 32)
OTHER_CLUSTER = ClusterId("b" * 32)

HOLDER = """
import sys
from pathlib import Path
from p2psched.store.folder import DataFolder
with DataFolder.open(Path(sys.argv[1]), create=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.is_file()}


def test_a_new_folder_gets_an_identity_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with DataFolder.open(path, create=True, name="one") as folder:
        made = folder.identity
        assert ids.is_id(made.peer)
        assert (made.name, made.cluster, made.incarnation) == ("one", None, 0)
    with DataFolder.open(path, create=False) as folder:
        assert folder.identity == made
    with DataFolder.open(path, create=True, name="two") as folder:
        assert folder.identity == made


def test_two_folders_are_two_peers(tmp_path: Path) -> None:
    with (
        DataFolder.open(tmp_path / "a", create=True) as one,
        DataFolder.open(tmp_path / "b", create=True) as other,
    ):
        assert one.identity.peer != other.identity.peer
        assert (one.identity.name, other.identity.name) == ("a", "b")


def test_a_folder_is_its_owners_alone_and_has_places_for_others(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o755)
    with DataFolder.open(path, create=True) as folder:
        assert path.stat().st_mode & 0o777 == 0o700
        assert folder.ledger_path.is_dir()
        assert folder.run_path.is_dir()
        assert folder.results_path == path / "results.db"
        assert (path / "identity").stat().st_mode & 0o777 == 0o600


def test_each_incarnation_is_new_across_restarts(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        with DataFolder.open(tmp_path / "data", create=True) as folder:
            seen += [folder.next_incarnation(), folder.next_incarnation()]
            assert folder.identity.incarnation == seen[-1]
    assert seen == [1, 2, 3, 4, 5, 6]


def test_an_incarnation_is_on_disk_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append(f"rename to {target.name}")
        return real_replace(self, target)

    with DataFolder.open(tmp_path / "data", create=True) as folder:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        folder.next_incarnation()
    assert steps == ["sync identity.new", "rename to identity", "sync data"]


def test_an_incarnation_that_can_not_be_written_is_refused_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with DataFolder.open(tmp_path / "data", create=True) as folder:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(Refused, match=r"identity: No space left on device: free some"):
                folder.next_incarnation()
        assert folder.identity.incarnation == 0
        assert folder.next_incarnation() == 1


def test_the_cluster_is_learnt_once_and_kept(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "data", create=True) as folder:
        folder.set_cluster(CLUSTER)
        folder.set_cluster(CLUSTER)
    with DataFolder.open(tmp_path / "data", create=False) as folder:
        assert folder.identity.cluster == CLUSTER
        with pytest.raises(Refused, match=f"belongs to cluster {CLUSTER}"):
            folder.set_cluster(OTHER_CLUSTER)
        assert folder.identity.cluster == CLUSTER


@pytest.mark.smoke
@pytest.mark.process
def test_a_second_process_is_told_who_holds_the_folder_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match=rf"{path} is in use by process {holder.pid}: stop it"):
            DataFolder.open(path, create=True)
        holder.kill()
    DataFolder.open(path, create=False).close()


def test_a_folder_is_free_again_after_close_and_after_a_failed_open(tmp_path: Path) -> None:
    path = tmp_path / "data"
    folder = DataFolder.open(path, create=True)
    with pytest.raises(Refused, match=f"in use by process {os.getpid()}"):
        DataFolder.open(path, create=True)
    folder.close()
    folder.close()
    (path / "identity").write_bytes(b"{}")
    for _ in range(2):
        with pytest.raises(Damaged):
            DataFolder.open(path, create=True)


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    tmp_path.chmod(0o755)
    with pytest.raises(Refused, match=r"holds other files"):
        DataFolder.open(tmp_path, create=True)
    assert contents(tmp_path) == {"thesis.txt": b"chapter one"}
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("exists", [True, False])
def test_without_create_nothing_is_made(tmp_path: Path, *, exists: bool) -> None:
    path = tmp_path / "data"
    if exists:
        path.mkdir()
    with pytest.raises(NotFound, match=f"no peer keeps its data in {path}"):
        DataFolder.open(path, create=False)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["data"] * exists


def test_a_first_start_that_crashed_early_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"12345\n")
    (tmp_path / "identity.new").write_bytes(b"{")
    with DataFolder.open(tmp_path, create=True) as folder:
        assert folder.identity.incarnation == 0


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(Refused, match="choose a folder, not a file"):
        DataFolder.open(tmp_path / "data", create=True)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_a_place_that_can_not_be_written_is_refused_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", failing)
    with pytest.raises(Refused, match=f"can't use .*data.* as data folder: {os.strerror(code)}"):
        DataFolder.open(tmp_path / "data", create=True)


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    DataFolder.open(tmp_path / "data", create=True).close()
    identity = tmp_path / "data" / "identity"
    newer = json.dumps({"format": 2, "who": "unknown"})
    identity.write_text(newer)
    with pytest.raises(Refused, match="newer p2psched"):
        DataFolder.open(tmp_path / "data", create=True)
    assert identity.read_text() == newer


def test_any_changed_byte_of_the_identity_is_noticed(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "data", create=True) as folder:
        folder.set_cluster(CLUSTER)
        folder.next_incarnation()
        kept = folder.identity
    identity = tmp_path / "data" / "identity"
    sound = identity.read_bytes()
    for place in range(len(sound)):
        spoiled = bytearray(sound)
        spoiled[place] ^= 1
        identity.write_bytes(spoiled)
        try:
            with DataFolder.open(tmp_path / "data", create=True) as folder:
                # White space and the case of an escape may change without changing the meaning.
                assert folder.identity == kept
        except (Damaged, Refused):
            pass
    identity.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(Damaged, match="join again with an empty --data"):
        DataFolder.open(tmp_path / "data", create=True)


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines"])
def test_a_name_that_can_not_be_shown_is_the_callers_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't name a peer"):
        DataFolder.open(tmp_path / "data", create=True, name=name)
    DataFolder.open(tmp_path / "data", create=True, name="fine").close()


def test_the_address_book_comes_back(tmp_path: Path) -> None:
    book = {PeerId("1" * 32): ("one", "10.0.0.1:7"), PeerId("2" * 32): ("two", "[::1]:7")}
    with DataFolder.open(tmp_path / "data", create=True) as folder:
        assert folder.address_book.load() == {}
        folder.address_book.save(book)
    with DataFolder.open(tmp_path / "data", create=False) as folder:
        assert folder.address_book.load() == book


@pytest.mark.parametrize("damage", [b"", b"{", b'{"x": 3}', b"[1]", b"\xff" * 40])
def test_a_damaged_address_book_is_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    with DataFolder.open(tmp_path / "data", create=True) as folder:
        (tmp_path / "data" / "peers.json").write_bytes(damage)
        assert folder.address_book.load() == {}
        folder.address_book.save({PeerId("1" * 32): ("one", "a:1")})
        assert len(folder.address_book.load()) == 1


def test_an_address_book_is_bounded(tmp_path: Path) -> None:
    book = {PeerId(f"{n:032x}"): ("n", "a:1") for n in range(ADDRESSES_MAX + 5)}
    with DataFolder.open(tmp_path / "data", create=True) as folder:
        folder.address_book.save(book)
        assert len(folder.address_book.load()) == ADDRESSES_MAX


def test_an_address_book_that_can_not_be_written_is_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DataFolder.open(tmp_path / "data", create=True) as folder:
        files.aside_of(tmp_path / "data" / "peers.json").mkdir()
        folder.address_book.save({PeerId("1" * 32): ("one", "a:1")})
    assert [record.msg for record in caplog.records] == ["address-book-not-saved"]


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (1, {"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/p2psched/n1"),
        (1, {"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/p2psched/n1"),
        (1, {"HOME": "/h"}, "/h/.local/state/p2psched/n1"),
        (0, {"HOME": "/root"}, "/root/.local/state/p2psched/n1"),
        (0, {}, "/var/lib/p2psched/n1"),
    ],
)
def test_the_default_folder_follows_the_platform(
    monkeypatch: pytest.MonkeyPatch, uid: int, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert default_data_folder("n1", environ) == Path(expected)


def test_a_user_without_a_home_is_asked_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    with pytest.raises(UsageError, match="pass --data"):
        default_data_folder("n1", {})


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "run", "x" * 65, "a b"])
def test_a_name_that_is_no_folder_name_is_the_callers_mistake(name: str) -> None:
    with pytest.raises(UsageError, match="can't name a folder"):
        default_data_folder(name, {"HOME": "/h"})


def test_a_folder_is_set_aside_whole_and_a_new_identity_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with DataFolder.open(path, create=True, name="one") as folder:
        old = folder.identity.peer
        (path / "ledger" / "log").write_text("kept")
        with pytest.raises(Refused, match="in use"):
            set_aside(path)
    aside = set_aside(path)
    assert aside == tmp_path / f"data.removed-{old[:8]}"
    assert (aside / "ledger" / "log").read_text() == "kept"
    with DataFolder.open(path, create=True, name="one") as folder:
        assert folder.is_new
        assert folder.identity.peer != old
    with DataFolder.open(aside, create=False) as folder:
        assert folder.identity.peer == old


def test_no_folder_is_set_aside_in_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with DataFolder.open(path, create=True) as folder:
        taken = tmp_path / f"data.removed-{folder.identity.peer[:8]}"
    taken.mkdir()
    with pytest.raises(Refused, match="is there already"):
        set_aside(path)
    assert (path / "identity").exists()
