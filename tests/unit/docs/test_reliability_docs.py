"""Tests that the pages on reliability and security name existing tests."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PAGES = {
    name: (TESTS.parent / "docs" / f"{name}.rst").read_text()
    for name in ("reliability", "security")
}
TEST = re.compile("``((?:unit|functional|packaging)/[^`]*)``")
NAMED = sorted({name for page in PAGES.values() for name in TEST.findall(page)})


def rows(page):
    """Return the rows of the tables of proofs: all cells but the last, and the last one."""
    for table in re.findall(r"(   \* - .*?)(?=\n\n\n|\n\n[^ ]|\Z)", PAGES[page], re.DOTALL):
        head, *others = (row.split("\n     - ") for row in table.split("   * - ")[1:])
        if head[-1].strip() in ("Proved by", "Tests"):
            yield from ((" ".join(said), proof) for *said, proof in others)


@pytest.mark.parametrize("name", NAMED)
def test_exists(name):
    """Each test that a documentation page names exists: its file, class and function."""
    path, *parts = name.split("::")
    body = ast.parse((TESTS / path).read_text()).body
    for part in parts:
        found = [item for item in body if getattr(item, "name", None) == part]
        assert found, f"{path} has no {part}"
        assert isinstance(found[0], ast.ClassDef | ast.FunctionDef)
        body = found[0].body
        assert part.startswith(("Test", "test_"))


@pytest.mark.parametrize("page", PAGES)
def test_each_promise_is_proved(page):
    """Each row of the tables of guarantees names at least one test."""
    promises = list(rows(page))
    assert len(promises) > 20
    assert [said for said, proof in promises if not TEST.search(proof)] == []
    named = {name for _, proof in promises for name in re.findall("``(.*?)``", proof)}
    assert named == set(TEST.findall(PAGES[page]))
