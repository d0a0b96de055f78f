"""Check the sdist, and that the distribution installs, alone and beside the real pulpcore.

Usage: ``python tests/packaging/check.py``

The script builds the wheel and installs it as users do (wheel and editable) into new virtual
environments in a temporary folder. This takes a few minutes and needs a package index for pip, so
the test run doesn't include it: ``.ci/run`` calls it. The exit status is 0 on success.
"""

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pulpcore/plugin/download/futures/"

# A user's first steps, without pulpcore: import all public names, and download a file.
ALONE = """
import sys
from importlib.metadata import version
from pathlib import Path

import pulpcore.plugin.download.futures as futures
from pulpcore.plugin.download.futures import *
import pulpcore.plugin.download.futures.http
import pulpcore.plugin.download.futures.cli

missing = [name for name in futures.__all__ if name not in globals()]
assert not missing, missing
assert version("pulpcore-futures")

source = Path("source")
source.write_bytes(b"content")
writer = BufferWriter()
download = FileDownload(source.absolute().as_uri(), writer)
monitor = DownloadMonitor(download)
download()
assert writer.content() == "content"
print("   ", futures.__file__)
"""

# The same beside pulpcore. Its own downloaders and models must still work.
BESIDE = (
    """
import django

django.setup()

import pulpcore.plugin.download
import pulpcore.plugin.models

assert pulpcore.plugin.download.__file__.endswith("__init__.py")
assert pulpcore.plugin.download.HttpDownloader
"""
    + ALONE
    + """
digests = set(pulpcore.plugin.models.Artifact.DIGEST_FIELDS)
assert set(monitor.facts()) == digests | {"size"}, monitor.facts()
"""
)


class Environment:
    """A new virtual environment, whose programs run with a minimal set of environment variables."""

    def __init__(self, folder: Path) -> None:
        """Create the virtual environment.

        Args:
            folder: The folder to create it in; must not exist yet.
        """
        print(f"== {folder.name}", flush=True)
        self.folder = folder
        self.work = folder / "work"
        venv.create(folder, with_pip=True, symlinks=True)
        self.work.mkdir()
        self.variables = {
            name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ
        }
        self.variables["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"

    def run(self, program: str, *arguments: str, folder: Path | None = None) -> None:
        """Run a program of the environment.

        Args:
            program: The name of the program in the environment's ``bin``.
            *arguments: The arguments of the program.
            folder: The working directory. By default the work folder of the environment.

        Raises:
            subprocess.CalledProcessError: The program failed.
        """
        command = [str(self.folder / "bin" / program), *arguments]
        subprocess.run(command, cwd=folder or self.work, env=self.variables, check=True)

    def install(self, *requirements: str) -> None:
        """Install distributions with pip.

        Args:
            *requirements: Requirements or options for pip.
        """
        print("   install", *(item.rpartition("/")[2] for item in requirements), flush=True)
        self.run("pip", "install", "-qq", *requirements)
        self.run("pip", "check")

    def uninstall(self) -> None:
        """Uninstall this distribution."""
        self.run("pip", "uninstall", "-qq", "--yes", "pulpcore-futures")


def copy_source(folder: Path) -> None:
    """Copy the source, because a build leaves files in its tree.

    Args:
        folder: The folder to create and copy to.
    """
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__", "_build")
    for name in (".ci", "docs", "src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    # Hidden folders at the top are those of environments, tools and git.
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git" and not path.name.startswith(".coverage"):
            shutil.copy(path, folder)


def check_sdist(folder: Path, source: Path) -> None:
    """Build the sdist, compare it with the source, and run tests from it.

    Args:
        folder: A folder to work in.
        source: A copy of the source.
    """
    environment = Environment(folder / "sdist")
    project = tomllib.loads((source / "pyproject.toml").read_text())
    environment.install("--upgrade", "pip", *project["build-system"]["requires"])
    program = 'from setuptools import build_meta; build_meta.build_sdist("dist")'
    environment.run("python", "-c", program, folder=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, environment.work)
    (unpacked,) = environment.work.glob("pulpcore_futures-*")
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    wanted = {path for path in wanted if path.parts[0] != "dist" and ".egg-info" not in str(path)}
    missing = {str(path) for path in wanted if not (unpacked / path).is_file()}
    assert not missing, missing
    environment.install("--group", f"{unpacked}/pyproject.toml:test", f"{unpacked}[cli]")
    environment.run("pytest", "-q", "tests/unit", "tests/packaging", folder=unpacked)


def build(source: Path, folder: Path) -> Path:
    """Build the wheel, where an earlier build left a module, and check its content.

    Args:
        source: A copy of the source.
        folder: The folder for the wheel.

    Returns:
        The path of the wheel.
    """
    print("== wheel", flush=True)
    stale = source / "build" / "lib" / PACKAGE / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    pip = (sys.executable, "-m", "pip", "-qq")
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        licence = "License-Expression: GPL-2.0-or-later\n"
        assert licence in archive.read(metadata).decode()
    top = metadata.partition("/")[0] + "/"
    strays = [name for name in names if not name.startswith((PACKAGE, top, "pulp_futures.py"))]
    assert not strays, strays
    assert PACKAGE + "py.typed" in names
    wanted = {
        path.relative_to(source / "src").as_posix() for path in (source / "src").rglob("*.py")
    }
    packed = {name for name in names if name.endswith(".py")}
    assert wanted == packed, wanted ^ packed
    return wheel


def check_alone(environment: Environment, *requirements: str) -> None:
    """Install the distribution without pulpcore, and use it.

    Args:
        environment: The environment to install into.
        *requirements: The requirements to install.
    """
    environment.install(*requirements)
    environment.run("python", "-c", ALONE)
    environment.run("pulp-futures", "sync")
    environment.uninstall()


def check_beside(environment: Environment, *requirements: str) -> None:
    """Install the distribution beside pulpcore, use it, and check that its removal is harmless.

    Args:
        environment: The environment to install into; it has pulpcore.
        *requirements: The requirements to install.
    """
    environment.install(*requirements)
    environment.run("python", "-c", BESIDE)
    environment.run("pulp-futures", "sync")
    check_without_settings(environment)
    environment.uninstall()
    environment.run("python", "-c", BESIDE.partition("import sys")[0])


def check_without_settings(environment: Environment) -> None:
    """Check that without Django's settings the program prints one line that says what is missing.

    Args:
        environment: The environment with pulpcore and this distribution.
    """
    names = ("DJANGO_SETTINGS_MODULE", "PULP_DB_ENCRYPTION_KEY")
    variables = {key: value for key, value in environment.variables.items() if key not in names}
    result = subprocess.run(
        [str(environment.folder / "bin" / "pulp-futures"), "sync"],
        cwd=environment.work,
        env=variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode, result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    print("   ", result.stderr, end="")


def main() -> None:
    """Build the wheel, then check each way to install it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        copy_source(source)
        check_sdist(folder, source)
        wheel = build(source, folder)
        editable = ("--editable", f"{source}[cli]")

        alone = Environment(folder / "alone")
        check_alone(alone, f"{wheel}[cli]")
        check_alone(alone, *editable)

        beside = Environment(folder / "beside-pulpcore")
        # The minimum that pulpcore's settings require. Nothing here opens its database.
        key = folder / "database_fields.symmetric.key"
        key.write_bytes(base64.b64encode(bytes(32)))
        beside.variables["DJANGO_SETTINGS_MODULE"] = "pulpcore.app.settings"
        beside.variables["PULP_DB_ENCRYPTION_KEY"] = str(key)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        beside.install(*project["dependency-groups"]["pulpcore"])
        check_beside(beside, f"{wheel}[cli]")
        check_beside(beside, *editable)
    print("packaging: ok")


if __name__ == "__main__":
    main()
