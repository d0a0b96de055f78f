"""What names a version of a file, and what part of it a reply brings."""

import pytest
import requests

from pulpcore.plugin.download.futures.http.resume import (
    ContentRange,
    Version,
    content_range,
    is_as_asked,
    strong_validator,
)

DATE = "Sun, 06 Nov 1994 08:49:38 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:37 GMT"


def answer(**headers: str) -> requests.Response:
    """A reply with those headers."""
    response = requests.Response()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({}, None),
        ({"ETag": '"e"'}, '"e"'),
        ({"ETag": '""'}, '""'),
        ({"ETag": '"W/e\x80\xff!"'}, '"W/e\x80\xff!"'),
        ({"ETag": 'W/"e"'}, None),
        ({"ETag": 'w/"e"'}, None),
        ({"ETag": "e"}, None),
        ({"ETag": ""}, None),
        ({"ETag": '"e'}, None),
        ({"ETag": '"e f"'}, None),
        ({"ETag": '"e", "f"'}, None),
        ({"ETag": '"e"\n'}, None),
        ({"ETag": '"\x7f"'}, None),
        ({"Date": DATE, "Last_Modified": BEFORE}, BEFORE),
        ({"Date": DATE, "Last_Modified": DATE}, None),
        ({"Date": BEFORE, "Last_Modified": DATE}, None),
        ({"Last_Modified": BEFORE}, None),
        ({"Date": DATE}, None),
        ({"Date": DATE, "Last_Modified": ""}, None),
        ({"Date": DATE, "Last_Modified": "then"}, None),
        ({"Date": "now", "Last_Modified": BEFORE}, None),
        ({"Date": DATE, "Last_Modified": BEFORE[:-4]}, None),
        ({"Date": DATE, "Last_Modified": "Sun, 06 Nov 1994 08:49:37 -0000"}, None),
        ({"Date": DATE, "Last_Modified": "Sun, 99 Nov 1994 08:49:37 GMT"}, None),
        ({"Date": DATE, "Last_Modified": BEFORE, "ETag": 'W/"e"'}, None),
        ({"Date": DATE, "Last_Modified": BEFORE, "ETag": '"e"'}, '"e"'),
    ],
)
def test_strong_validator(headers: dict[str, str], validator: str | None) -> None:
    """A strong ETag, else a Last-Modified that is older than the reply, else nothing."""
    assert strong_validator(answer(**headers)) == validator


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("bytes 0-0/1", ContentRange(0, 0, 1)),
        ("bytes 5-9/10", ContentRange(5, 9, 10)),
        ("bytes 5-9/*", ContentRange(5, 9, None)),
        (" bytes \t5-9/10 ", ContentRange(5, 9, 10)),
        ("Bytes 5-9/10", ContentRange(5, 9, 10)),
        ("bytes 005-009/010", ContentRange(5, 9, 10)),
        ("", None),
        ("bytes */10", None),
        ("bytes 5-9", None),
        ("bytes 5-9/", None),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("bytes -5-9/10", None),
        ("bytes +5-9/10", None),
        ("bytes 5-9/10, 11-12/20", None),
        ("bytes=5-9/10", None),
        ("bytes 5 - 9 / 10", None),
        ("lines 5-9/10", None),
        ("bytes 0-" + "9" * 19 + "/*", None),
    ],
)
def test_content_range(value: str, part: ContentRange | None) -> None:
    """A part is what the reply plainly says."""
    assert content_range(answer(Content_Range=value)) == part


def test_no_content_range() -> None:
    """Without the field there is no part."""
    assert content_range(answer()) is None


@pytest.mark.parametrize(
    ("value", "part", "is_it"),
    [
        ("bytes=0-", (0, 9, 10), True),
        ("bytes=0-", (0, 8, 10), False),
        ("bytes=0-", (1, 9, 10), False),
        ("bytes=0-", (0, 9, None), True),
        ("bytes=5-7", (5, 7, 10), True),
        ("bytes=5-7", (5, 7, None), True),
        ("BYTES = 5 - 7", (5, 7, 10), True),
        ("bytes=5-7", (5, 6, 10), False),
        ("bytes=5-7", (5, 8, 10), False),
        ("bytes=5-7", (5, 6, None), True),
        ("bytes=5-7", (5, 8, None), False),
        ("bytes=5-7", (5, 9, 10), False),
        ("bytes=5-7", (0, 2, 10), False),
        ("bytes=5-70", (5, 9, 10), True),
        ("bytes=5-70", (5, 8, 10), False),
        ("bytes=5-70", (5, 70, 71), True),
        ("bytes=-3", (7, 9, 10), True),
        ("bytes=-3", (6, 9, 10), False),
        ("bytes=-3", (7, 8, 10), False),
        ("bytes=-30", (0, 9, 10), True),
        ("bytes=-3", (7, 9, None), True),
        ("bytes=0-1,5-9", (0, 1, 10), True),
        ("bytes=-", (0, 1, 10), True),
        ("lines=5-9", (0, 1, 10), True),
        ("", (0, 1, 10), True),
    ],
)
def test_is_as_asked(value: str, part: tuple[int, int, int | None], is_it: bool) -> None:
    """A part is the one that a single simple range asks for; of others nothing is said."""
    assert is_as_asked(value, ContentRange(*part)) is is_it


def test_note() -> None:
    """A version is found again in its note, for its URL only."""
    for version in (Version("u", '"e"', 7), Version("u", "Sun, 22 Nov 2026 00:00:00 GMT", None)):
        assert Version.from_note(version.note(), "u") == version
        assert Version.from_note(version.note(), "v") is None


@pytest.mark.parametrize("note", ["", "x", "[]", "1", "[1, 2, 3]", "[" * 100_000])
def test_no_note(note: str) -> None:
    """What isn't a note is no version."""
    assert Version.from_note(note, "u") is None
