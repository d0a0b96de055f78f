"""The page on what is promised names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.rst").read_text()
NAMED = sorted(set(re.findall(r"``((?:unit|functional)/[^`]*)``", PAGE)))


@pytest.mark.parametrize("name", NAMED)
def test_exists(name):
    """Each test that is named is there, by file, class and function."""
    path, *parts = name.split("::")
    body = ast.parse((TESTS / path).read_text()).body
    for part in parts:
        found = [item for item in body if getattr(item, "name", None) == part]
        assert found, f"{path} has no {part}"
        assert isinstance(found[0], ast.ClassDef | ast.FunctionDef)
        body = found[0].body
        assert part.startswith(("Test", "test_"))


def test_each_promise_is_proved():
    """Each row of a table names a test."""
    rows = re.findall(r"   \* - (.*?)\n     - (.*?)(?=\n   \* -|\n\n\n|\Z)", PAGE, re.DOTALL)
    promises = [(promise, proof) for promise, proof in rows if promise != "Promise"]
    assert len(promises) > 20
    assert [promise for promise, proof in promises if "``" not in proof] == []
    assert {name for _, proof in promises for name in re.findall("``(.*?)``", proof)} == set(NAMED)
