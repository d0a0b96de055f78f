import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.rst"
# A program, and what the README shows as its output.
PROGRAM = re.compile(
    r"\.\. code-block:: python\n\n(?P<code>(?:    .*\n|\n)+)"
    r"(?:It prints.*::\n\n(?P<output>(?:    .*\n)+))?"
)
BASE = "http://127.0.0.1:8000"


@pytest.fixture
def zoo() -> Iterator[str]:
    """Start the demo server by the README's command, on another port. Return its URL."""
    assert "    python3 docs/zoo.py\n" in README.read_text()
    with subprocess.Popen(
        [sys.executable, "docs/zoo.py", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def programs() -> list[tuple[str, str]]:
    """Return the programs of the README with their output."""
    found = PROGRAM.finditer(README.read_text())
    return [(dedent(match["code"]), dedent(match["output"] or "")) for match in found]


@pytest.mark.parametrize(("code", "output"), programs()[:2])
def test_program(
    code: str,
    output: str,
    zoo: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The programs run as they are against the demo server, and print what the README shows."""
    monkeypatch.chdir(tmp_path)
    exec(code.replace(BASE, zoo), {})
    assert output
    # A batch returns its downloads in the order in which they end.
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(output.splitlines())


def test_beside_pulp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example "Beside Pulp" calls django.setup()."""
    done: list[str] = []
    django = ModuleType("django")
    vars(django)["setup"] = lambda: done.append("setup")
    monkeypatch.setitem(sys.modules, "django", django)
    exec(programs()[2][0], {})
    assert done == ["setup"]


def test_nothing_is_missed() -> None:
    """The tests above run all code of the README, and each page that the README names exists."""
    text = README.read_text()
    assert text.count(".. code-block::") == len(programs()) == 3
    assert not re.search(r"^ *>>>|\.\. code::|literalinclude", text, re.MULTILINE)
    named = re.findall(r"``docs/(\w+)\.rst``", text)
    assert named
    for name in named:
        assert (ROOT / "docs" / f"{name}.rst").is_file()
