"""Tests of the link checker that runs when the documentation is built."""

import runpy
from pathlib import Path

import pytest

check = runpy.run_path(str(Path(__file__).parents[3] / "docs" / "check_links.py"))["check"]


@pytest.fixture
def wrong(tmp_path):
    """Check a page with the given link, next to a page with an anchor and a picture."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other page.html").write_text('<h1 id="top">Top</h1>')
    (tmp_path / "picture.svg").write_text("<svg/>")

    def wrong(link):
        (tmp_path / "page.html").write_text(f'<p id="here"><a href="{link}">x</a></p>')
        return check(tmp_path)

    return wrong


@pytest.mark.parametrize(
    "link",
    [
        *("page.html", "#here", "#", "sub/other%20page.html#top", "picture.svg", "picture.svg#a"),
        *("https://pulpproject.org/", "mailto:ann@pulpproject.org"),
        "data:image/png;base64,AA==",
    ],
)
def test_good(wrong, link):
    """The link checker accepts existing pages and anchors, and well-formed external URLs."""
    assert wrong(link) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("none.html", "there is no such file"),
        ("sub", "there is no such file"),
        ("#there", "the page has no such anchor"),
        ("sub/other%20page.html#bottom", "the page has no such anchor"),
        ("http://pulpproject.org", "it should be https"),
        ("https://", "there is no host"),
        ("https://[name]", "IPv6"),
    ],
)
def test_bad(wrong, link, reason):
    """The link checker reports each broken link together with its page and the reason."""
    (found,) = wrong(link)
    assert found.startswith("page.html: ")
    assert reason in found


def test_no_pages(tmp_path):
    """The link checker fails for a folder without pages."""
    (found,) = check(tmp_path)
    assert "no pages" in found
