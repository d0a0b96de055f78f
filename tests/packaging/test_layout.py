import configparser
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "pulpcore" / "plugin" / "download" / "futures"
README_COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/pulp-futures sync",
    "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox",
]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_each_package_is_named(project: dict[str, Any]) -> None:
    """pyproject.toml lists each package of the source; the wheel would lack any other package."""
    found = {
        ".".join(path.parent.relative_to(SOURCE).parts) for path in SOURCE.rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_each_module_is_in_a_package() -> None:
    """Each folder with modules has an __init__.py; the wheel would lack any other folder."""
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    strays = {folder for folder in folders - {SOURCE} if not (folder / "__init__.py").is_file()}
    assert not strays


def test_each_top_level_module_is_named(project: dict[str, Any]) -> None:
    """pyproject.toml lists each top-level module; the wheel would lack any other module."""
    found = {path.stem for path in SOURCE.glob("*.py")}
    assert set(project["tool"]["setuptools"]["py-modules"]) == found


def test_nothing_of_pulpcore_is_overwritten() -> None:
    """No folder above the package has files: the wheel could overwrite files of pulpcore."""
    above = [*PACKAGE.parents][: len(PACKAGE.relative_to(SOURCE).parts) - 1]
    for folder in above:
        assert not [path for path in folder.iterdir() if path.is_file()]


def test_it_is_typed() -> None:
    """The package has py.typed; without it, type checkers ignore the annotations."""
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_has_one_place(project: dict[str, Any]) -> None:
    """The installed distribution has the version in pyproject.toml."""
    assert version("pulpcore-futures") == project["project"]["version"]


@pytest.mark.parametrize("command", README_COMMANDS)
def test_readme_has_the_command(command: str) -> None:
    """The README has each command in a literal block, on one line."""
    lines = (ROOT / "README.rst").read_text().splitlines()
    assert f"    {command}" in lines


@pytest.mark.parametrize("command", README_COMMANDS)
def test_ci_runs_the_command(command: str) -> None:
    """CI runs exactly the commands of the README."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in [line.strip() for line in lines]


def test_ci_runs_all_tests() -> None:
    """CI runs each tox environment that runs pytest."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    testing = {
        name.removeprefix("testenv:")
        for name in tox.sections()
        if "pytest" in tox[name].get("commands", "")
    }
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    run = {line.removeprefix(".venv/bin/tox -e ") for line in lines}
    # `tox` without arguments runs these.
    run |= set(tox["tox"]["env_list"].split(", "))
    assert {"py", "lowest", "nginx", "pulpcore"} <= testing
    assert testing <= run
