"""Tests of file versions on FTP servers, and of when a version is certain."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from pulpcore.plugin.download.futures.ftp.version import Sighting, Version, place


def told(age):
    """Format a modification time of so many hours ago as an FTP server sends it."""
    return (datetime.now(UTC) - timedelta(hours=age)).strftime("%Y%m%d%H%M%S")


@pytest.mark.parametrize(
    ("age", "certain"),
    [(0, False), (12, False), (12.9, False), (14, True), (9999, True), (-14, False)],
)
@pytest.mark.parametrize("fraction", ["", ".123"])
def test_old(age, certain, fraction):
    """A modification time is certain when it has passed in every time zone."""
    sighting = Sighting.of(Version("p", 1, told(age) + fraction), time.monotonic(), None)
    assert sighting.is_certain is certain


@pytest.mark.parametrize("modified", ["20209901000000", "00000101000000", ""])
def test_no_time(modified):
    """An invalid modification time never makes a version certain."""
    assert not Sighting.of(Version("p", 1, modified), time.monotonic(), None).is_certain


NOW = told(0)


@pytest.mark.parametrize(
    ("seconds", "changes", "certain"),
    [
        (1.9, {}, False),
        (2.1, {"size": 2}, False),
        (2.1, {"place": "q"}, False),
        (2.1, {"modified": "29990101000000"}, False),
        (2.1, {}, True),
    ],
)
def test_seen_before(seconds, changes, certain):
    """A version is certain when it was seen unchanged for at least two seconds."""
    version = Version("p", 1, NOW)
    first = Sighting.of(version, time.monotonic(), None)
    second = Sighting.of(version._replace(**changes), first.since + seconds, first)
    assert (first.is_certain, second.is_certain) == (False, certain)
    assert (second.since == first.since) is (not changes)


def test_note():
    """A version survives being written to a note and read back.

    An invalid note gives no version.
    """
    version = Version(place("ftp://h/a", "me"), 5, told(99))
    assert Version.from_note(version.note()) == version
    for note in ("", "1", "null", "[]", "[1, 2]", "[" * 100_000):
        assert Version.from_note(note) is None


def test_place():
    """Each combination of URL and user gives a different key, also with undecodable bytes."""
    places = [place(url, user) for url in ("ftp://h/a", "ftp://h/\udcff") for user in ("", "me")]
    assert len(set(places)) == 4
