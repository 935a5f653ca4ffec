"""Large files, large results and many small inputs, as people and scripts type them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.files import File
from tests.cli.terminal import terminal
from tests.cluster import COMMAND, LiveCluster

pytestmark = pytest.mark.process

MIB: Final = 1024 * 1024
SQUARE: Final = """
import sys
for line in sys.stdin:
    if line == "77\\n":
        sys.exit("cannot do 77")
    print(int(line) ** 2)
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("one")) as cluster:
        cluster.start("a")
        yield cluster


def piped(cluster: LiveCluster, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line that reads `text`."""
    return subprocess.run(
        [*COMMAND, *words],
        input=text,
        capture_output=True,
        text=True,
        env=cluster.env,
        timeout=60,
        check=False,
    )


@pytest.mark.smoke
def test_a_large_file_goes_up_and_what_a_task_made_of_it_comes_down(
    one: LiveCluster, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (3 * MIB // 256)
    (tmp_path / "data.bin").write_bytes(data)
    program = "tr '\\000' '\\001' < data.bin > made.bin; echo small > note; echo done"
    words = ("--send", str(tmp_path / "data.bin"), "--collect", "made.bin", "--collect", "note")
    done = one.run("submit-job", *words, "--wait", "--", "sh", "-c", program)
    assert (done.returncode, done.stdout) == (0, "done\n")

    table = one.ok("job", "results", "last")
    assert "done [made.bin, 3.0 MiB] [note, 6 B]" in table.replace("…", "")
    (row,) = json.loads(one.ok("job", "results", "last", "-o", "json"))["results"]
    assert [(o["name"], o["bytes"]) for o in row["outputs"]] == [("made.bin", 3 * MIB), ("note", 6)]

    said = one.ok("job", "results", "last/0", "--save", str(tmp_path / "here"))
    assert "2 files of 3.0 MiB" in said
    assert (tmp_path / "here/0/made.bin").read_bytes() == data.replace(b"\0", b"\1")
    assert (tmp_path / "here/0/note").read_text() == "small\n"
    (tmp_path / "here/0/note").unlink()
    told = json.loads(one.ok("job", "results", "last", "--save", str(tmp_path / "here"), "-ojson"))
    assert (told["files"], told["present"], told["lost"]) == (1, 1, 0)
    (tmp_path / "here/0/note").write_text("other\n")
    refused = one.run("job", "results", "last", "--save", str(tmp_path / "here"))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--force" in refused.stderr

    one.ok("job", "export", "last", str(tmp_path / "whole"), "--to", "dir")
    assert (tmp_path / "whole/0/files/made.bin").read_bytes() == data.replace(b"\0", b"\1")


def test_a_file_that_was_not_left_fails_the_task(one: LiveCluster) -> None:
    done = one.run("submit-job", "--collect", "gone", "--wait", "--", "true")
    assert done.returncode == 1
    assert "left no file 'gone'" in done.stderr


def test_the_progress_of_an_upload_is_shown_on_a_terminal_only(
    one: LiveCluster, tmp_path: Path
) -> None:
    path = tmp_path / "data.bin"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
    with terminal(one, ["submit-job", "--send", str(path), "--", "true"]) as screen:
        screen.wait_for("of 256.0 MiB, ")
        assert screen.wait_end() == 0
    quiet = one.run("submit-job", "--send", str(path), "--", "true")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def _values(kind: int) -> object:
    match kind:
        case 0:
            return "plain"
        case 1:
            return {1}
        case 2:
            return list(range(100_000))
        case _:
            Path("made").write_text("file\n")
            return [File("made"), {2}]


def test_values_are_shown_as_what_they_are_and_saved_unopened(
    one: LiveCluster, tmp_path: Path
) -> None:
    async def work(client: Client) -> str:
        job = await client.map(_values, range(4))
        await job.wait()
        return job.id

    job = one.ask(work)
    rows = one.ok("job", "results", job).splitlines()[1:]
    assert rows[0].endswith("ok     'plain'")
    assert "[pickle of " in rows[1]
    assert "--unpickle opens it]" in rows[1]
    assert "[large value of " in rows[2]
    assert "[pickle with 1 file of " in rows[3]
    found = json.loads(one.ok("job", "results", job, "-o", "json"))["results"]
    assert [row["value_kind"] for row in found] == ["plain", "pickle", "large", "pickle"]
    assert found[2]["value_bytes"] > 200_000
    opened = one.ok("job", "results", f"{job}/2", "--unpickle")
    assert "[0, 1, 2, 3" in opened
    one.ok("job", "results", job, "--save", str(tmp_path / "out"))
    saved = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert saved == {"0/value.json", "1/value.packed", "2/value.packed", "3/value.packed"}
    assert (tmp_path / "out/3/made").read_text() == "file\n"


def test_a_result_that_is_lost_is_one_line_with_the_way_out(
    empty: LiveCluster, tmp_path: Path
) -> None:
    peer = empty.start("a")
    program = "head -c 200000 /dev/zero > big; echo $P2P_ATTEMPT"
    empty.ok("submit-job", "--name", "big", "--collect", "big", "--wait", "--", "sh", "-c", program)
    status = empty.ok("status")
    assert "1 large result short of copies (1 of 2 copies: this cluster has one peer)" in status
    fields = json.loads(empty.ok("status", "-o", "json"))["status"]
    assert (fields["blobs_short"], fields["blobs_counted"], fields["peers_live"]) == (1, 1, 1)
    empty.stop("a")
    shutil.rmtree(peer.data / "blobs")
    empty.wait_ready(empty.restart_nowait("a"))
    done = empty.run("job", "results", "big", "--save", str(tmp_path / "out"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no peer has 1 large result of job ")
    assert "p2psched job retry" in line
    exported = empty.run("job", "export", "big", str(tmp_path / "whole"), "--to", "dir")
    assert exported.returncode == 1
    assert (tmp_path / "whole/0/files/big.lost").exists()
    assert empty.run("job", "retry", "big", "--wait").returncode == 0
    empty.ok("job", "results", "big", "--save", str(tmp_path / "out"))
    assert (tmp_path / "out/0/big").read_bytes() == bytes(200_000)


# --- many small inputs ----------------------------------------------------------------------------


def test_one_bad_input_fails_alone_and_line_n_is_that_of_input_n(
    one: LiveCluster, tmp_path: Path
) -> None:
    (tmp_path / "square.py").write_text(SQUARE)
    words = ("--batch", "40", "--send", str(tmp_path / "square.py"), "--wait")
    text = "".join(f"{number}\n" for number in range(100))
    done = piped(
        one, text, "submit-job", "--inputs", "-", *words, "--", "python3", "-S", "square.py"
    )
    wanted = ["" if number == 77 else str(number**2) for number in range(100)]
    assert done.stdout.splitlines() == wanted
    assert done.returncode == 1
    assert "input 78: exit code 1: cannot do 77" in done.stderr
    assert "1 of 100 inputs failed" in done.stderr

    again = one.run("job", "results", "last")
    assert (again.returncode, again.stdout) == (1, done.stdout)
    assert "100 inputs, 40 a process" in one.ok("job", "show", "last")
    assert one.ok("jobs", "--limit", "1").splitlines()[1].endswith("100 inputs, 40 a process")
    assert one.run("job", "wait", "last").returncode == 1
    listed = one.run("job", "results", "last", "-o", "json")
    inputs = json.loads(listed.stdout)["inputs"]
    assert [row["input"] for row in inputs if not row["ok"]] == [78]
    assert inputs[99] == {"input": 100, "ok": True, "out": "9801", "error": None}


def test_inputs_as_arguments_succeed_with_exit_code_0(one: LiveCluster, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a b\n$HOME\nlast")
    words = ("--inputs", str(tmp_path / "in"), "--batch", "2", "--args", "--wait")
    done = one.run("submit-job", *words, "--", "printf", "<%s>\\n")
    assert (done.returncode, done.stdout) == (0, "<a b>\n<$HOME>\n<last>\n")


def test_a_batch_that_takes_too_long_fails_its_inputs_and_no_others(
    one: LiveCluster, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("1\n2\n3\n")
    program = 'while read -r n; do test "$n" != 2 || sleep 60; echo "$n"; done'
    words = ("--inputs", str(tmp_path / "in"), "--batch", "2", "--timeout", "1s", "--wait")
    done = one.run("submit-job", *words, "--", "sh", "-c", program)
    assert (done.returncode, done.stdout) == (1, "\n\n3\n")
    assert "input 2: timeout" in done.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--batch", "5"), "--inputs FILE"),
        (("--args",), "--inputs FILE"),
        (("--inputs", "/dev/null"), "there are no inputs"),
        (("--inputs", "/nowhere"), "can't be read"),
        (("--inputs", "/dev/null", "--array", "0-3"), "no --array"),
        (("--inputs", "/dev/null", "--batch", "1001"), "1 to 1,000 inputs"),
        (("--collect", "a", "--cwd", "/tmp"), "leave --cwd away"),
        (
            (
                "--collect",
                "a/b",
            ),
            "an output file's name",
        ),
    ],
)
def test_wrong_usage_is_said_in_one_line(
    one: LiveCluster, words: tuple[str, ...], part: str
) -> None:
    done = one.run("submit-job", *words, "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
