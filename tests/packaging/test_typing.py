"""Type checkers accept the uses of the API that the pages and tests/typing show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USES = (ROOT / "tests" / "typing" / "uses.py").read_text()
# Each class, function and constant in the reference.
DOCUMENTED = re.findall(
    r"^\.\. auto(?:class|function|data):: pulpcore\.plugin\.download\.futures\.([\w.]+)$",
    (ROOT / "docs" / "futures.rst").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_name_is_used(name: str) -> None:
    """tests/typing/uses.py, which type checkers read, imports and uses each documented name."""
    name = name.rpartition(".")[2]
    imports, code = re.split(r"\n\n\ndef ", USES, maxsplit=1)
    assert re.search(rf"\b{name}\b", imports)
    assert re.search(rf"\b{name}\b", code)


def test_names_are_found() -> None:
    """The regular expression finds names at the top level and in submodules."""
    assert {"Batch", "batch.BACKLOG", "address.is_public"} <= set(DOCUMENTED)


def test_programs_of_the_pages(tmp_path: Path) -> None:
    """Each program of the README and of the pages passes mypy --check-untyped-defs and pyright."""
    pytest.importorskip("mypy")
    pytest.importorskip("pyright")
    script = ROOT / "tests" / "typing" / "pages.py"
    run = subprocess.run(
        [sys.executable, script, tmp_path / "pages"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stdout
