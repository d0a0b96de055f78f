"""Tests of version validators (ETag, Last-Modified) and of conditional requests."""

import pytest
import requests

from pulpcore.plugin.download.futures.http.condition import Validators, is_unchanged

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


def answer(
    status: int = 200, asked: dict[str, str] | None = None, **headers: str
) -> requests.Response:
    """Make a response with headers, to a request with headers."""
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response.request = requests.Request("GET", "http://localhost/", asked).prepare()
    return response


@pytest.mark.parametrize(
    ("validators", "headers"),
    [
        (Validators(), {}),
        (Validators("", ""), {}),
        (Validators('W/"e"'), {"If-None-Match": 'W/"e"'}),
        (Validators(None, DATE), {"If-Modified-Since": DATE}),
        (Validators('"e"', DATE), {"If-None-Match": '"e"', "If-Modified-Since": DATE}),
    ],
)
def test_headers(validators: Validators, headers: dict[str, str]) -> None:
    """A conditional request repeats the known ETag and Last-Modified literally."""
    assert validators.headers() == headers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ('"e"', DATE)),
        ({"ETag": "", "Last_Modified": ""}, ('"e"', DATE)),
        ({"ETag": '"f"'}, ('"f"', DATE)),
        ({"Last_Modified": "then"}, ('"e"', "then")),
    ],
)
def test_updated(headers: dict[str, str], expected: tuple[str, str]) -> None:
    """A response that has an ETag or Last-Modified updates the known validators.

    One without keeps them.
    """
    assert Validators('"e"', DATE).updated(answer(**headers)) == expected
    assert Validators().updated(answer()) == (None, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (None, None)),
        ({"if-none-match": '"e"'}, ('"e"', None)),
        ({"If-Modified-Since": DATE}, (None, DATE)),
        ({"If-None-Match": b'"e"'}, (None, None)),
    ],
)
def test_asked(headers: dict[str, str], expected: tuple[str | None, str | None]) -> None:
    """The validators of a request are read from its headers, if those are text."""
    assert Validators.asked(answer(asked=headers)) == expected


def test_named() -> None:
    """The validator for a range request is an ETag if it is quoted, and otherwise a date."""
    assert Validators.named('"e"') == Validators(etag='"e"')
    assert Validators.named(DATE) == Validators(last_modified=DATE)


@pytest.mark.parametrize(
    ("status", "headers", "unchanged"),
    [
        (304, {}, False),
        (304, {"If-Range": '"e"'}, False),
        (304, {"if-none-match": '"e"'}, True),
        (304, {"If-Modified-Since": DATE}, True),
        (200, {"If-None-Match": '"e"'}, False),
        (412, {"If-None-Match": '"e"'}, False),
    ],
)
def test_is_unchanged(status: int, headers: dict[str, str], unchanged: bool) -> None:
    """Only a 304 response to a conditional request means that the file is unchanged."""
    assert is_unchanged(answer(status, headers)) is unchanged
