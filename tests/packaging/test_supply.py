"""The dependencies of the distribution, and the exceptions from the linter's rules."""

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXCEPTION = re.compile(r"# noqa(.*)")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_lowest_versions_are_tested(project: dict[str, Any]) -> None:
    """Each dependency has a lower bound, and `tox -e lowest` installs exactly that version."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    tested = dict(
        line.split(" == ") for line in tox["testenv:lowest"]["deps"].splitlines() if line.strip()
    )
    admitted = dict(
        requirement.split(">=")
        for requirement in [
            *project["project"]["dependencies"],
            *project["project"]["optional-dependencies"]["cli"],
        ]
    )

    def numbers(version: str) -> list[int]:
        found = [int(number) for number in version.split(".")]
        return found + [0] * (3 - len(found))

    assert {name: numbers(version) for name, version in tested.items()} == {
        name: numbers(version) for name, version in admitted.items()
    }
    newest = tox["testenv:newest"]["commands_pre"]
    assert all(f" {name}" in newest for name in admitted)


def test_security_rules_are_on(project: dict[str, Any]) -> None:
    """The linter applies Bandit's security rules to all code but the tests."""
    lint = project["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not [code for code in lint["ignore"] if code.startswith("S")]
    passed_over = {
        pattern
        for pattern, codes in lint["per-file-ignores"].items()
        if any(re.fullmatch(r"S\d*", code) for code in codes)
    }
    assert passed_over == {"tests/**"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_each_exception_has_a_reason(path: Path) -> None:
    """Each `noqa` comment in the source names the rule and gives a reason."""
    for rest in EXCEPTION.findall(path.read_text()):
        assert re.fullmatch(r": [A-Z]+\d+(, [A-Z]+\d+)* - \S.{8,}", rest), rest
