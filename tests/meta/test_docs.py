"""The documents agree with each other, with the Makefile and with the files they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
ADRS: Final = tuple(sorted((ROOT / "docs/adr").glob("[0-9]*.md")))
PAGES: Final = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SECTIONS: Final = ["Objective", "Requirements", "Choice", "Rejected ways", "What shows it"]
PAGE_LINES_MAX: Final = 80


def dead_links(page: Path) -> list[str]:
    """Links of a page to files that don't exist. Addresses of the web are not followed."""
    return [
        target
        for target in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[here](page.md#top) [gone](gone.md) [web](https://example.org/x)")
    assert dead_links(page) == ["gone.md"]


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    assert [page.name[:4] for page in ADRS] == [f"{n:04d}" for n in range(1, len(ADRS) + 1)]
    assert len(ADRS) >= 10
    listed = LINK.findall((ROOT / "docs/adr/README.md").read_text())
    assert listed == [page.name for page in ADRS]


@pytest.mark.parametrize("page", ADRS, ids=lambda page: page.name)
def test_a_decision_is_one_page_with_all_of_its_sections(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert [name for name in found if name in SECTIONS] == SECTIONS
    assert text.startswith(f"# {page.name[:4]}: ")
    assert "\nStatus: " in text
    assert len(text.splitlines()) <= PAGE_LINES_MAX


def test_make_targets_that_the_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        blocks = "\n".join(text.split("```")[1::2])  # prose may begin a line with "make"
        named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"(?m)^make ([a-z-]+)", blocks)
        assert set(named) <= targets, page.name


def test_unreleased_changes_stand_on_top() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0" in text
    assert "END OF TERMS AND CONDITIONS" in text
