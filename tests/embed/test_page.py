"""The page about embedding shows a program that runs as it is written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import COMMAND_S, LiveCluster

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as cluster:
        yield cluster


@pytest.mark.process
def test_the_first_program_of_the_page_runs(live: LiveCluster) -> None:
    plant = live.start("plant", slots=0)
    program = PAGE.read_text().split("```python\n")[1].split("```")[0]
    for written, here in (
        ("/var/lib/gateway/peer", str(live.folder / "gateway")),
        ("127.0.0.1:7420", plant.address),
    ):
        assert program.count(written) == 1
        program = program.replace(written, here)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        env=live.env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4.0\n"
