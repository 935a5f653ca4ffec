"""Where a detached peer's words go, from its first one to those in another folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from p2psched.cli.detach import _arguments
from p2psched.model.config import Config

CHILD = """
import os, sys
from pathlib import Path
from p2psched.cli.detach import enter_background
folder = Path(sys.argv[1])
print("first", file=sys.stderr)
enter_background(folder, is_ready=False)
print("second", file=sys.stderr)
folder.rename(folder.with_name("aside"))
folder.mkdir()
enter_background(folder, is_ready=True)
enter_background(folder, is_ready=True)
print("third", file=sys.stderr)
"""


def test_a_log_goes_on_in_the_folder_that_took_the_place_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with tempfile.TemporaryFile() as notes:
        argv = [sys.executable, "-c", CHILD, str(folder)]
        assert subprocess.run(argv, stderr=notes, check=False).returncode == 0
    assert (tmp_path / "aside" / "peer.log").read_text() == "first\nsecond\n"
    assert (folder / "peer.log").read_text() == "third\n"


def test_a_detached_peer_is_as_patient_as_it_was_told_to_be() -> None:
    config = Config(
        name="a", data="d", listen="h:1", slots=1, python="p", runtime_dir="r", stall_ms=1_500
    )
    words = _arguments(config)
    assert words[words.index("--stall-after") + 1] == "1500ms"
