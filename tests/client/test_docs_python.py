"""The examples of docs/python.md run as they stand there, each as a script of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

DOC: Final = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
SCRIPT_S: Final = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("docs")) as cluster:
        cluster.start("a", slots=4)
        yield cluster


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(number: int, cluster: LiveCluster, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[number])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=cluster.env,
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), BLOCKS[number]
