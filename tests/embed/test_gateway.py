"""The example program of `docs/embedding.md`, through a bad day of its cluster."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Final

import psutil
import pytest

from tests.cluster import COMMAND_S, LiveCluster

pytestmark = pytest.mark.process

SCRIPT: Final = Path(__file__).resolve().parents[2] / "examples" / "gateway.py"
WINDOW: Final = 5
PILE: Final = 15  # windows


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as cluster:
        yield cluster


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gateway_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(live: LiveCluster, *options: str) -> subprocess.Popen[str]:
    given = ["--data", str(live.folder / "gateway"), "--window", str(WINDOW), "--period", "0.01"]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *given, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=live.env,
        text=True,
    )


def read_until(process: subprocess.Popen[str], is_last: Callable[[str], bool]) -> list[str]:
    """Lines of its output up to one that fits, which must come."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if is_last(lines[-1]):
            return lines
    assert process.stderr is not None
    raise AssertionError(f"it ended after {lines}: {process.stderr.read()}")


def end_of(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """What it says until it ends: the other lines of its output, and its errors. `communicate`
    would leave out what `read_until` has in its buffer."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines, errors = process.stdout.read().splitlines(), process.stderr.read()
    process.wait(COMMAND_S)
    return lines, errors


def piled_up(line: str) -> bool:
    words = line.split()
    return line.startswith("the cluster is gone") and int(words[4]) >= PILE


def test_a_gateway_goes_on_when_its_cluster_is_gone_says_so_and_loses_no_window(
    live: LiveCluster,
) -> None:
    plant = live.start("plant", slots=1)
    with start(live, "--join", plant.address) as gateway:
        lines = read_until(gateway, lambda line: line.startswith("window 3 scores"))
        live.kill("plant")
        lines += read_until(gateway, lambda line: line.startswith("the cluster is gone"))
        lines += read_until(gateway, piled_up)
        last = f"window {len(_scores(lines)) + PILE} scores"
        live.restart("plant")
        lines += read_until(gateway, lambda line: line.startswith("the cluster is back"))
        if not any(line.startswith(last) for line in lines):  # the pile may be gone already
            lines += read_until(gateway, lambda line: line.startswith(last))
        children = psutil.Process(gateway.pid).children(recursive=True)
        gateway.send_signal(signal.SIGINT)
        rest, err = end_of(gateway)
        assert gateway.returncode == 0, err
        assert rest[-1].startswith("stopped: ")
        assert psutil.wait_procs(children, timeout=COMMAND_S)[1] == []
    scores = _scores([*lines, *rest])
    assert scores == _expected(len(scores))


def _scores(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("window ")]


def test_a_gateway_that_can_not_join_says_why_and_ends(live: LiveCluster) -> None:
    plant = live.start("plant", slots=0)
    (live.folder / "wrong").write_text("00" * 32)
    (live.folder / "wrong").chmod(0o600)
    wrong = str(live.folder / "wrong")
    with start(live, "--join", plant.address, "--secret-file", wrong) as gateway:
        _, err = gateway.communicate(timeout=COMMAND_S)
        assert gateway.returncode == 5
        assert "secret does not match" in err.splitlines()[-1]


@pytest.mark.smoke
def test_sigterm_ends_a_gateway_that_is_a_cluster_of_its_own(live: LiveCluster) -> None:
    with start(live) as gateway:
        read_until(gateway, lambda line: line.startswith("window 1 scores"))
        gateway.terminate()
        rest, err = end_of(gateway)
        assert (gateway.returncode, err) == (0, "")
        assert rest[-1].startswith("stopped: ")


def _expected(count: int) -> list[str]:
    """The same windows, scored here."""
    module = example()
    values = module.readings(7)
    return [
        f"window {number} scores {module.score(list(islice(values, WINDOW))):.3f}"
        for number in range(count)
    ]
