import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = (ROOT / "CHANGELOG.rst").read_text()
SECTIONS = re.findall(r"^(.+)\n-{4,}$", CHANGELOG, re.MULTILINE)


def numbers(version: str) -> list[int]:
    """Return the numbers of a version, for comparison."""
    return [int(number) for number in version.split(".")]


def test_what_comes_next_has_a_place() -> None:
    """The first section of the changelog lists the unreleased changes."""
    assert SECTIONS[0] == "Unreleased"


def test_the_newest_release_is_this_version() -> None:
    """The newest release in the changelog is the version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SECTIONS[1] == project["version"]


def test_the_newest_release_has_a_date() -> None:
    """The newest release says when it was released."""
    assert re.search(
        rf"^{SECTIONS[1]}\n-+\n\nReleased on \d{{4}}-\d\d-\d\d\.$", CHANGELOG, re.MULTILINE
    )


def test_releases_are_in_order() -> None:
    """Each release has one section, whose title has three numbers; the newest comes first."""
    releases = [numbers(title) for title in SECTIONS[1:]]
    assert all(len(release) == 3 for release in releases)
    assert releases == sorted(releases, reverse=True)
    assert len({tuple(release) for release in releases}) == len(releases)


@pytest.mark.parametrize("title", SECTIONS)
def test_each_section_says_something(title: str) -> None:
    """No section of the changelog is empty, and the subsections have the standard titles."""
    body = re.split(rf"^{re.escape(title)}\n-+\n", CHANGELOG, flags=re.MULTILINE)[1]
    body = re.split(r"^.+\n-{4,}$", body, flags=re.MULTILINE)[0]
    assert body.strip()
    kinds = re.findall(r"^(.+)\n\.{4,}$", body, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}
