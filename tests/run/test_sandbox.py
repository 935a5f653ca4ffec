"""A program in a sandbox sees nothing of its peer; where there is none it does not run at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import pytest

from p2psched.model.checkpoints import WORK, folder_name
from p2psched.model.isolation import SANDBOX_LABEL, Isolation
from p2psched.model.job import Cause, JobSpec
from p2psched.model.needs import Needs
from p2psched.run.host.bounds import Bounds
from p2psched.run.host.sandbox import wrapped
from p2psched.run.means import Setup, find
from tests.run.rig import Rig, TaskEnd, functions, program, with_pool
from tests.run.test_programs import shell

BWRAP: Final = shutil.which("bwrap")
needs_bwrap = pytest.mark.skipif(BWRAP is None, reason="there is no bubblewrap on this machine")
NEEDS: Final = Needs(require=((SANDBOX_LABEL, "bwrap"),))


def boxed(spec: JobSpec, **more: object) -> JobSpec:
    isolation = Isolation(sandbox="bwrap", **more)  # type: ignore[arg-type]  # any of its fields
    found = msgspec.structs.replace(spec, isolation=isolation, needs=NEEDS)
    found.__post_init__()
    return found


def run(folder: Path, spec: JobSpec) -> TaskEnd:
    ends: list[TaskEnd] = []

    async def scenario(rig: Rig) -> None:
        ends.append((await rig.run(spec)).tasks[0])

    with_pool(folder, scenario, slots=1)
    return ends[0]


@needs_bwrap
def test_a_task_sees_its_own_folder_and_nothing_of_its_peer(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the peer")
    script = (
        "echo mine > file; cat file; echo $TMPDIR $HOME $PWD; ls -A /root /home 2>/dev/null;"
        f"cat {tmp_path}/secret; touch /etc/x; echo; ls -d /proc/[0-9]* | wc -l"
    )
    end = run(tmp_path, boxed(shell(script)))
    assert end.cause is Cause.OK
    told = end.stdout.decode()
    own = told.splitlines()[1].split()
    assert told.startswith("mine\n")
    assert len(set(own)) == 1
    assert "of the peer" not in told
    assert int(told.split()[-1]) < 8
    assert b"Read-only file system" in end.stderr


@needs_bwrap
def test_a_task_saves_checkpoints_from_its_sandbox(tmp_path: Path) -> None:
    job = f"{1:08x}{0:024x}"
    work = tmp_path / "checkpoints" / folder_name(job, 0) / WORK
    work.mkdir(parents=True)
    spec = msgspec.structs.replace(boxed(shell("echo 7 > saved/step")), checkpoint="saved")
    assert run(tmp_path, spec).cause is Cause.OK
    assert (work / "step").read_text() == "7\n"


@needs_bwrap
def test_a_task_without_network_reaches_nobody(tmp_path: Path) -> None:
    script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1"
    assert run(tmp_path, boxed(shell(script), network=False)).stdout.split() in ([b"lo"], [])
    assert run(tmp_path, boxed(shell("exit 7"))).header["exit"] == 7


@needs_bwrap
def test_limits_hold_in_a_sandbox(tmp_path: Path) -> None:
    sleepers = "i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i+1)); done; wait"
    end = run(tmp_path, boxed(shell(sleepers), processes=8))
    assert (end.cause, "its limit is 8" in str(end.header)) == (Cause.SIGNAL, True)
    end = run(tmp_path, boxed(shell("head -c 2000000 /dev/zero > f; exit $?"), file_size=1 << 20))
    assert "over its limit" in str(end.header)


def test_without_bubblewrap_a_task_is_refused_and_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    mark = tmp_path / "it-ran"
    end = run(tmp_path, boxed(program("/usr/bin/touch", str(mark))))
    assert (end.cause, mark.exists()) == (Cause.NOT_STARTABLE, False)
    assert "can't make a sandbox" in str(end.header["message"])


def test_what_is_hidden_is_not_started(tmp_path: Path) -> None:
    means: dict[str, object] = {"bwrap": "/usr/bin/bwrap", "hidden": [str(tmp_path)]}
    limits = Bounds({"sandbox": "bwrap"})
    with pytest.raises(ValueError, match="hidden in a sandbox"):
        wrapped(["x"], f"{tmp_path}/x", means, limits, own=[f"{tmp_path}/t"], cwd=None)
    with pytest.raises(ValueError, match="hidden in a sandbox"):
        wrapped(["x"], "/bin/x", means, limits, own=[f"{tmp_path}/t"], cwd=f"{tmp_path}/other")
    (tmp_path / "x").touch()
    with tempfile.TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / "link").symlink_to(tmp_path / "x")
        with pytest.raises(ValueError, match="hidden in a sandbox"):
            wrapped(["x"], f"{elsewhere}/link", means, limits, own=[f"{tmp_path}/t"], cwd=None)
    command = wrapped(["x", "y"], "/bin/x", means, limits, own=[f"{tmp_path}/t"], cwd=None)
    assert command[-3:] == ["--", "/bin/x", "y"]
    assert command.index(str(tmp_path)) < command.index(f"{tmp_path}/t")


def test_only_commands_get_a_sandbox_and_only_where_there_is_one() -> None:
    with pytest.raises(ValueError, match="only commands"):
        boxed(functions("os:getpid"))
    with pytest.raises(ValueError, match="requires the label"):
        JobSpec(
            "job",
            program("true").tasks,
            program("true").work,
            isolation=Isolation(sandbox="bwrap"),
        )


def test_a_bubblewrap_that_does_not_work_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('no user namespaces here')\n")
    broken.chmod(0o755)
    secret = tmp_path / "secret"
    secret.touch()
    found = find(Setup((str(secret), "/no/such")), tmp_path / "pool", {"PATH": str(tmp_path)})
    assert (found.bwrap, "no user namespaces here" in found.no_bwrap) == ("", True)
    assert str(secret) in found.hidden
    assert "/no/such" not in found.hidden
    none = find(Setup(), tmp_path / "pool", {"PATH": os.devnull})
    assert "install" in none.no_bwrap
