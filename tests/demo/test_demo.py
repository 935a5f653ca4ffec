"""`p2psched demo`, whole, as a person starts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2psched.cli import demo
from p2psched.client.client import Client
from p2psched.demo.cluster import RUNTIME_VARIABLE
from p2psched.model.errors import UsageError
from tests.integration.rig import gone, until

COMMAND = (sys.executable, "-m", "p2psched", "demo", "--short")


def _start(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """With a folder for temporary files of its own, so that what is left can be seen."""
    return subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), RUNTIME_VARIABLE: str(temporary / "users")},
    )


def _processes_of(folder: Path) -> set[int]:
    """Peers, workers and everything else that was started in or for a folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and int(path.name) != os.getpid():
            found.add(int(path.name))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Nothing that a failed test left runs on."""
    yield tmp_path
    for pid in _processes_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.process
def test_the_demo_kills_the_leader_loses_nothing_and_leaves_a_cluster_if_asked(
    folder: Path,
) -> None:
    with _start(folder, "--json", "--keep") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["ok"] is True
    assert all(check["ok"] for check in report["checks"])
    assert report["tasks"] == 60
    assert sum(peer["tasks"] for peer in report["peers"]) == 60
    assert sum(map(sum, report["winner"]["confusion"])) == report["images"]
    outage = report["outage"]
    (killed,) = [peer for peer in report["peers"] if peer["name"] == outage["killed"]]
    assert killed["pids"][0] == outage["pid"]
    assert len(killed["pids"]) == 2
    assert gone(outage["pid"])
    assert outage["leaderless_ms"] > 0
    (rerun,) = report["reruns"]
    assert (rerun["cause"], rerun["peer"]) == ("peer-lost", outage["killed"])
    assert f"kill -9 {outage['pid']}" in err
    kept = Path(report["kept_in"])
    assert f"export {RUNTIME_VARIABLE}={kept}" in err
    asyncio.run(_talk_to_and_stop(kept / "runtime", report["job"]))
    _wait(lambda: not _processes_of(folder))


async def _talk_to_and_stop(runtime: Path, job: str) -> None:
    async with Client(runtime_dir=runtime) as client:
        peers = await client.peers()
        assert [peer.state for peer in peers] == ["alive"] * 3
        assert (await (await client.job("digits")).show()).job == job
    for peer in peers:
        os.kill(peer.info.pid, signal.SIGTERM)


@pytest.mark.smoke
@pytest.mark.process
def test_ctrl_c_ends_every_process_and_removes_the_folder(folder: Path) -> None:
    with _start(folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "submitted" in line:
                break
        assert len(_processes_of(folder)) >= 4  # the demo itself and three peers
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    _wait(lambda: not _processes_of(folder))
    assert list(folder.iterdir()) == []


def _wait(condition: Callable[[], bool]) -> None:
    asyncio.run(until(condition))


def test_a_missing_library_is_said_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("no_such_library",))
    with pytest.raises(UsageError, match=r"no_such_library.*pip install 'p2psched\[demo\]'"):
        demo.demo()


def test_too_few_peers_to_survive_a_kill_are_refused() -> None:
    with pytest.raises(UsageError, match="--no-kill"):
        demo.demo(peers=2)
