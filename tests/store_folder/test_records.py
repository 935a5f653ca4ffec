"""Records of local peers: found by commands, trusted only if nobody else can write them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2psched.model.errors import Refused
from p2psched.model.ids import ClusterId, PeerId
from p2psched.store.records import (
    Record,
    default_runtime_dir,
    list_records,
    remove_record,
    write_record,
)


def make_record(tmp_path: Path, number: int = 1, *, pid: int = 0, started_ms: int = 0) -> Record:
    data = tmp_path / f"data-{number}"
    data.mkdir(exist_ok=True)
    return Record(
        peer=PeerId(f"{number:032x}"),
        cluster=ClusterId("c" * 32),
        name=f"n{number}",
        address=f"127.0.0.1:{number}",
        pid=pid or os.getpid(),
        data_folder=str(data),
        secret_path=str(data / "secret"),
        started_ms=started_ms,
    )


def ended_process(directory: Path, record_of: Path, number: int, started_ms: int = 0) -> Record:
    """Write the record of a process that was alive then and is not now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        record = make_record(record_of, number, pid=process.pid, started_ms=started_ms)
        write_record(directory, record)
        assert next(r for r in list_records(directory) if r.peer == record.peer).alive
        process.kill()
    return record


def test_no_folder_is_no_peers(tmp_path: Path) -> None:
    assert list_records(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_written_record_is_listed_until_it_is_removed(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    write_record(tmp_path / "run", record)
    assert list_records(tmp_path / "run") == [record]
    remove_record(tmp_path / "run", record.peer)
    remove_record(tmp_path / "run", record.peer)
    assert list_records(tmp_path / "run") == []


def test_records_are_their_owners_alone(tmp_path: Path) -> None:
    write_record(tmp_path / "deep" / "run", make_record(tmp_path))
    assert (tmp_path / "deep" / "run").stat().st_mode & 0o777 == 0o700
    (file,) = (tmp_path / "deep" / "run").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_newer_record_of_a_peer_replaces_the_older(tmp_path: Path) -> None:
    write_record(tmp_path / "run", make_record(tmp_path, started_ms=1))
    write_record(tmp_path / "run", make_record(tmp_path, started_ms=2))
    assert [record.started_ms for record in list_records(tmp_path / "run")] == [2]


@pytest.mark.process
def test_those_alive_come_first_and_the_newest_of_each_kind(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for number, started_ms in ((1, 10), (2, 30), (3, 20)):
        write_record(directory, make_record(tmp_path, number, started_ms=started_ms))
    ended_process(directory, tmp_path, 4, started_ms=99)
    listed = list_records(directory)
    assert [(r.name, r.alive) for r in listed] == [
        ("n2", True),
        ("n3", True),
        ("n1", True),
        ("n4", False),
    ]


@pytest.mark.process
def test_a_dead_peers_record_goes_with_its_data_folder(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    record = ended_process(directory, tmp_path, 1)
    assert [r.alive for r in list_records(directory)] == [False]
    Path(record.data_folder).rmdir()
    assert list_records(directory) == []
    assert list(directory.iterdir()) == []


@pytest.mark.smoke
@pytest.mark.process
def test_a_later_process_with_the_same_pid_is_not_taken_for_the_peer(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    record = ended_process(directory, tmp_path, 1)
    (file,) = directory.iterdir()
    again = file.read_text().replace(f'"pid":{record.pid}', f'"pid":{os.getpid()}')
    assert again != file.read_text()
    file.write_text(again)
    assert [r.alive for r in list_records(directory)] == [False]


@pytest.mark.parametrize("content", [b"", b"{", b'{"record": 1}', b"\xff" * 50, b"x" * 100_000])
def test_what_is_no_record_is_passed_over(tmp_path: Path, content: bytes) -> None:
    record = make_record(tmp_path)
    write_record(tmp_path / "run", record)
    (tmp_path / "run" / f"{'d' * 32}.json").write_bytes(content)
    (tmp_path / "run" / "notes.txt").write_bytes(content)
    assert list_records(tmp_path / "run") == [record]


def test_a_link_among_the_records_is_passed_over(tmp_path: Path) -> None:
    write_record(tmp_path / "other", make_record(tmp_path))
    (tmp_path / "run").mkdir(mode=0o700)
    (file,) = (tmp_path / "other").iterdir()
    (tmp_path / "run" / file.name).symlink_to(file)
    assert list_records(tmp_path / "run") == []


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(Refused, match="symbolic link"):
        write_record(tmp_path / "run", make_record(tmp_path))
    with pytest.raises(Refused, match="symbolic link"):
        list_records(tmp_path / "run")
    assert list((tmp_path / "real").iterdir()) == []


def test_a_folder_that_others_can_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o770)
    with pytest.raises(Refused, match="chmod 700"):
        write_record(tmp_path / "run", make_record(tmp_path))
    with pytest.raises(Refused, match="chmod 700"):
        list_records(tmp_path / "run")


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(Refused, match="another user"):
        write_record(tmp_path / "run", make_record(tmp_path))
    with pytest.raises(Refused, match="another user"):
        list_records(tmp_path / "run")


def test_the_folder_is_the_sessions_if_there_is_one(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/h"}
    assert default_runtime_dir(environ) == tmp_path / "p2psched"


@pytest.mark.parametrize("runtime", ["", "relative", "/no/such/folder", "/etc/passwd"])
def test_without_a_session_it_is_in_the_home(runtime: str) -> None:
    environ = {"XDG_RUNTIME_DIR": runtime, "HOME": "/h"}
    assert default_runtime_dir(environ) == Path("/h/.local/state/p2psched/run")


def test_the_session_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert default_runtime_dir(environ) == Path("/tmp/p2psched-3999999999")
