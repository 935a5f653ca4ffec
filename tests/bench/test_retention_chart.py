"""The picture of what is kept: well formed, and each line at the place that its figures name."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bench.retention_chart import WIDTH, Run, panels, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def run(*values: float) -> Run:
    figures = [[value, value / 2, 0.0] for value in values]
    parts = ("pss_mib", "blobs_mib", "results_mib", "ledger_mib")
    return {"jobs": list(range(0, 100 * len(values), 100)), **dict.fromkeys(parts, figures)}


RUNS = {
    f"{kind}-{kept}": run(20.0, 30.0, 25.0)
    for kind in ("mixed", "small")
    for kept in ("bounded", "defaults")
}


def test_the_picture_is_well_formed_and_names_all_parts() -> None:
    root = ET.fromstring("\n".join(svg(RUNS)))  # our own text
    assert root.get("width") == str(WIDTH)
    said = " ".join(text.text or "" for text in root.iter(f"{NAMESPACE}text"))
    for word in ("MiB (PSS)", "jobs that ended", "large results", "results.db", "ledger"):
        assert word in said


def test_a_line_is_drawn_for_each_run_with_the_highest_of_the_peers() -> None:
    memory = panels(RUNS)[0]
    assert [line.points for line in memory.lines] == [[(0, 20.0), (100, 30.0), (200, 25.0)]] * 2
    assert len({line.dash for line in memory.lines}) == 2


def test_a_run_that_was_left_out_leaves_its_line_out() -> None:
    some = {name: found for name, found in RUNS.items() if name != "mixed-defaults"}
    assert len(panels(some)[0].lines) == 1
    ET.fromstring("\n".join(svg(some)))
