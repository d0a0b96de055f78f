"""Tests of which replies continue what another source has brought."""

import pytest
from http_tools import response_with

from pulpcore.plugin.download.futures import HttpDownload, SizeValidation
from pulpcore.plugin.download.futures.http.splice import Beginning

U = "http://example.org/a"
V = "http://example.net/a"


@pytest.mark.parametrize(
    ("headers", "is_it"),
    [
        ({"Content_Range": "bytes 5-9/10"}, True),
        ({"Content_Range": "bytes 5-9/10", "ETag": '"other"', "Content_Length": "5"}, True),
        ({}, False),
        ({"Content_Range": "bytes 5-9/*"}, False),
        ({"Content_Range": "bytes 5-9/11"}, False),
        ({"Content_Range": "bytes 5-10/11"}, False),
        ({"Content_Range": "bytes 5-8/10"}, False),
        ({"Content_Range": "bytes 4-9/10"}, False),
        ({"Content_Range": "bytes 6-9/10"}, False),
        ({"Content_Range": "bytes 5-9/10", "Content_Length": "4"}, False),
        ({"Content_Range": "bytes 5-9/10", "Content_Encoding": "gzip"}, False),
        ({"Content_Range": "bytes 5-9/10", "Content_Type": "multipart/byteranges"}, False),
    ],
)
def test_is_continued(headers: dict[str, str], is_it: bool) -> None:
    """A rest must begin at the right byte, have the same total size and be unencoded."""
    assert Beginning(U, 10).is_continued(response_with(**headers), V, 5) is is_it


@pytest.mark.parametrize(
    ("said", "sizes", "coding", "total"),
    [
        (10, [], None, 10),
        (10, [10], "", 10),
        (None, [10], None, 10),
        (None, [], None, None),
        (10, [11], None, None),
        (None, [10, 11], None, None),
        (None, [10], "gzip", None),
        ("10", [], "", None),
        (True, [], "", None),
    ],
)
def test_total(said: object, sizes: list[int], coding: str | None, total: int | None) -> None:
    """The size is known if all that name it agree, and if the content isn't encoded."""
    download = HttpDownload(U, None)
    download.validations = [SizeValidation(9, enforced=False), *map(SizeValidation, sizes)]
    assert Beginning.of(download, U, said, coding) == Beginning(U, total)
