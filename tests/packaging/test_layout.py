import configparser
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pulpcore.plugin.download import futures

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
    """The installed distribution, and so `__version__`, has the version in pyproject.toml."""
    assert version("pulpcore-futures") == project["project"]["version"] == futures.__version__


def test_other_attributes() -> None:
    """The package has no attribute that nobody has defined."""
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        futures.version  # type: ignore[attr-defined]  # noqa: B018


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


@pytest.fixture(scope="module")
def tox() -> configparser.ConfigParser:
    """The parsed tox.ini."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    return parser


CI = (ROOT / ".ci" / "run").read_text()
# The versions of Python that CI runs the tests on where they are installed, beside that of `py`.
PYTHONS = re.search(r"^pythons=\((.*)\)$", CI, re.MULTILINE)[1].split()  # type: ignore[index]


def test_ci_runs_all_tests(tox: configparser.ConfigParser) -> None:
    """CI runs each tox environment that runs pytest, except for that which installs servers."""
    testing = {
        name.removeprefix("testenv:")
        for name in tox.sections()
        if "pytest" in tox[name].get("commands", "") and "{" not in name
    }
    run = set(re.findall(r"^tests \.venv/bin/tox -e (\w+)$", CI, re.MULTILINE))
    # `tox` without arguments runs these.
    run |= set(tox["tox"]["env_list"].split(", "))
    assert {"py", "lowest", "nginx", "pulpcore"} <= testing
    assert testing - run == {"servers"}


def test_quick_checks_come_first(tox: configparser.ConfigParser) -> None:
    """Lint, types and docs run before the tests, and each stops the run when it fails."""
    *first, last = tox["tox"]["env_list"].split(", ")
    assert (sorted(first), last) == (["docs", "lint", "types"], "py")
    assert all(tox[f"testenv:{name}"]["fail_fast"] == "true" for name in first)


def test_each_python_has_an_environment(tox: configparser.ConfigParser) -> None:
    """There is an environment of tox for 3.11 and for each Python that CI looks for."""
    (versions,) = (name for name in tox.sections() if name.startswith("testenv:{"))
    assert set(versions.removeprefix("testenv:{").removesuffix("}").split(",")) == {
        "3.11",
        *PYTHONS,
    }
    assert tox["tox"]["skip_missing_interpreters"] == "true"


def test_classifiers(project: dict[str, Any]) -> None:
    """The classifiers name no version of Python that CI doesn't look for."""
    named = {
        classifier.rpartition(" ")[2]
        for classifier in project["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", classifier)
    }
    assert {"3.11", "3.12", "3.13"} <= named <= {"3.11", *PYTHONS}


def test_ci_leaves_the_tree_alone() -> None:
    """CI removes nothing but its scratch folder and a file that it made."""
    removing = re.findall(r"\brm .*", CI)
    assert removing == ['rm -rf "$scratch"\' EXIT', 'rm -f "$policy"\' EXIT']


def test_optional_libraries(tox: configparser.ConfigParser, project: dict[str, Any]) -> None:
    """The environment `py` has all optional libraries, and `lowest` has none of them."""
    optional = {"codings", "socks", "telemetry"}
    assert set(tox["testenv:py"]["extras"].split(", ")) == {"cli", *optional}
    assert tox["testenv:py"]["dependency_groups"] == "test, optional"
    assert (tox["testenv:lowest"]["extras"], tox["testenv:lowest"]["dependency_groups"]) == (
        "cli",
        "test",
    )
    named = {
        re.split("[>=]", requirement)[0].lower()
        for extra in optional
        for requirement in project["project"]["optional-dependencies"][extra]
    }
    assert named == {"brotli", "zstandard", "pysocks", "opentelemetry-api"}


def test_each_path_of_tox_exists() -> None:
    """Each file or folder of tests that tox.ini names is there."""
    named = re.findall(r"\btests/[\w./]+", (ROOT / "tox.ini").read_text())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
