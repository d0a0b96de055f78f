import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = (ROOT / "CHANGELOG.rst").read_text()
SECTIONS = re.findall(r"^(.+)\n-{4,}$", CHANGELOG, re.MULTILINE)


def numbers(version: str) -> list[int]:
    """The numbers of a version, to compare it."""
    return [int(number) for number in version.split(".")]


def test_what_comes_next_has_a_place() -> None:
    """There is a section for changes that aren't released, and it is the first."""
    assert SECTIONS[0] == "Unreleased"


def test_the_newest_release_is_this_version() -> None:
    """A version that is set without an entry, or an entry without a version, is found."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SECTIONS[1] == project["version"]


def test_releases_are_in_order() -> None:
    """Each release is named once, by its three numbers, newest first."""
    releases = [numbers(title) for title in SECTIONS[1:]]
    assert all(len(release) == 3 for release in releases)
    assert releases == sorted(releases, reverse=True)
    assert len({tuple(release) for release in releases}) == len(releases)


@pytest.mark.parametrize("title", SECTIONS)
def test_each_section_says_something(title: str) -> None:
    """A release without a word on it is of no use; nor is a section that nobody knows."""
    body = re.split(rf"^{re.escape(title)}\n-+\n", CHANGELOG, flags=re.MULTILINE)[1]
    body = re.split(r"^.+\n-{4,}$", body, flags=re.MULTILINE)[0]
    assert body.strip()
    kinds = re.findall(r"^(.+)\n\.{4,}$", body, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}
