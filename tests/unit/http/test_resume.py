"""Tests of the validators and ranges with which a partial HTTP download resumes."""

import json
from typing import Any

import pytest
from http_tools import response_with

from pulpcore.plugin.download.futures.http.resume import (
    ContentRange,
    Version,
    content_range,
    is_as_asked,
    is_whole,
    strong_validator,
)

DATE = "Sun, 06 Nov 1994 08:49:38 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:37 GMT"


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
    """The validator is a strong ETag, or a Last-Modified older than the response, or none."""
    assert strong_validator(response_with(**headers)) == validator


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
    """A well-formed Content-Range gives the part that the response contains."""
    assert content_range(response_with(Content_Range=value)) == part


def test_no_content_range() -> None:
    """Without a Content-Range a response isn't a part."""
    assert content_range(response_with()) is None


@pytest.mark.parametrize(
    ("value", "part", "is_it"),
    [
        ("bytes=0-", (0, 9, 10), True),
        ("bytes=0-", (0, 8, 10), False),
        ("bytes=0-", (1, 9, 10), False),
        ("bytes=0-", (0, 9, None), False),
        ("bytes=5-7", (5, 7, 10), True),
        ("bytes=5-7", (5, 7, None), True),
        ("BYTES = 5 - 7", (5, 7, 10), True),
        ("bytes=5-7", (5, 6, 10), False),
        ("bytes=5-7", (5, 8, 10), False),
        ("bytes=5-7", (5, 6, None), False),
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
        ("bytes=-3", (7, 9, None), False),
        ("bytes=-3", (5, 9, None), False),
        ("bytes=0-1,5-9", (0, 1, 10), False),
        ("bytes=-", (0, 1, 10), False),
        ("lines=5-9", (0, 1, 10), False),
        ("", (0, 1, 10), False),
    ],
)
def test_is_as_asked(value: str, part: tuple[int, int, int | None], is_it: bool) -> None:
    """A part must be the single range that was requested, as far as its Content-Range shows."""
    assert is_as_asked(value, ContentRange(*part)) is is_it


U, V = "http://example.org/a", "http://example.org/b"


def version(url: str = U, **headers: str) -> Version:
    """Return the version that a response from a URL has."""
    headers = headers or {"ETag": '"e"', "Last_Modified": BEFORE}
    found = Version.of(response_with(**headers), url, url, 10)
    assert found is not None
    return found


def test_note() -> None:
    """A version is read back from its note for the same URL only, whose query may differ."""
    for known in (version(), version(Last_Modified=BEFORE, Date=DATE)):
        assert Version.from_note(known.note(), U) == known
        assert Version.from_note(known.note(), U + "?signature=2") == known
        assert Version.from_note(known.note(), V) is None


@pytest.mark.parametrize(
    "note", ["", "x", "[]", "1", "[1, 2, 3]", "[" * 100_000, '["u", 1, 2, 3, 4, 5, 6]']
)
def test_no_note(note: str) -> None:
    """An invalid note gives no version."""
    assert Version.from_note(note, U) is None


@pytest.mark.parametrize("index", [1, 2, 3, 5])
def test_note_of_wrong_types(index: int) -> None:
    """A note whose values have wrong types gives no version."""
    values: list[Any] = list(version())
    values[index] = 7
    assert Version.from_note(json.dumps(values), U) is None


REST = {"ETag": '"e"', "Last_Modified": BEFORE, "Content_Range": "bytes 5-9/10"}


@pytest.mark.parametrize(
    ("headers", "answered", "is_it"),
    [
        ({}, U, True),
        ({"Last_Modified": None}, U, True),
        ({"Last_Modified": DATE}, U, False),
        ({"ETag": None}, U, False),
        ({"Content_Encoding": "gzip"}, U, False),
        ({"Content_Encoding": "identity"}, U, True),
        ({"Content_Range": "bytes 5-9/*"}, U, True),
        ({"Content_Length": "5"}, U, True),
        ({"Content_Length": "10"}, U, False),
        ({"Content_Type": "application/octet-stream"}, U, True),
        ({"Content_Type": "Multipart/Byteranges; boundary=x"}, U, False),
        # Another host or path that has the same ETag.
        ({}, V, False),
        ({}, "http://example.net/a", False),
        ({}, "https://example.org/a", False),
        # Another signature.
        ({}, U + "?s=2", True),
        ({"Last_Modified": None}, U + "?s=2", False),
        ({"Content_Range": "bytes 5-9/*"}, U + "?s=2", False),
    ],
)
def test_is_continued(headers: dict[str, str | None], answered: str, is_it: bool) -> None:
    """A part continues only the same resource with equal validator, coding and total size."""
    found = {name: value for name, value in {**REST, **headers}.items() if value is not None}
    assert version().is_continued(response_with(**found), answered, 5) is is_it


def test_is_continued_without_a_date() -> None:
    """If only the query differs, a Last-Modified must show that it is the same file."""
    found = {"ETag": '"e"', "Content_Range": "bytes 5-9/10"}
    assert version(ETag='"e"').is_continued(response_with(**found), U, 5)
    assert not version(ETag='"e"').is_continued(response_with(**found), U + "?s=2", 5)


def test_is_whole_by_its_length() -> None:
    """A 200 whose length contradicts its Content-Range isn't the whole file."""
    span = {"Content_Range": "bytes 0-9/10"}
    assert is_whole(response_with(**span, Content_Length="10"))
    assert not is_whole(response_with(**span, Content_Length="5"))
    head = response_with(**span, Content_Length="0")
    head.request.method = "HEAD"
    assert is_whole(head)


@pytest.mark.parametrize(
    ("value", "is_it"),
    [
        (None, True),
        ("bytes 0-9/10", True),
        ("bytes 0-8/10", False),
        ("bytes 5-9/10", False),
        ("bytes 0-9/*", False),
        ("nonsense", False),
    ],
)
def test_is_whole(value: str | None, is_it: bool) -> None:
    """A 200 response with the Content-Range of a part isn't the whole file."""
    assert is_whole(response_with(**({} if value is None else {"Content_Range": value}))) is is_it
