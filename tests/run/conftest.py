"""Workers of these tests find `samples`, wherever the tests are started."""

from __future__ import annotations

import pytest

from tests.run.rig import ROOT


@pytest.fixture(autouse=True)
def _workers_find_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
