"""Tests of the sources of a run that no download of a mirror shows."""

import pytest
from stubs import Stub

from pulpcore.plugin.download.futures.engine.protocol import Protocol
from pulpcore.plugin.download.futures.engine.sources import (
    ENOUGH,
    FAILURES,
    Site,
    Source,
    Tour,
    ranked,
)
from pulpcore.plugin.download.futures.error import transient


def test_other_protocols():
    """A protocol without mirrors ignores those of a download."""
    download = Stub()
    download.mirrors = ["test://other"]
    download()
    assert Protocol().sources(download) == ()
    assert Protocol().site("test://other") == "test://other"
    assert not Protocol().is_conditional(download)


def test_doubles():
    """A URL that is listed twice is asked once. The entry with a known site counts."""
    known = Site()
    known.failed(9.0)
    tour = Tour(["a", "b", "b", Source("a", known)], lambda _: Site())
    assert tour.source == "b"
    tour.advance()
    assert tour.source == "a"
    assert not tour.has_next


def test_a_source_is_left_alone_until_its_retry_after():
    """A source that sent Retry-After is skipped in earlier rounds."""
    now = [0.0]
    tour = Tour(["a", "b"], lambda _: Site(), clock=lambda: now[0])
    late = transient("busy")
    late.retry_after = 4.0
    tour.failed(late, 0.01)
    tour.advance()
    tour.failed(transient("gone"), 0.01)
    found = tour.transient(120)
    assert (found.reason, found.retry_after) == ("gone", None)
    tour.again(120, 1.0)
    assert (tour.source, tour.has_next) == ("b", False)
    now[0] = 1.0
    tour.failed(transient("gone"), 0.01)
    tour.again(120, 4.0)
    assert {tour.source, *tour._left} == {"a", "b"}


def test_what_is_left_of_the_retry_after_is_waited_for():
    """If all sources sent Retry-After, the wait ends with the shortest of them."""
    now = [0.0]
    tour = Tour(["a", "b"], lambda _: Site(), clock=lambda: now[0])
    for seconds in (9.0, 4.0):
        error = transient("busy")
        error.retry_after = seconds
        tour.failed(error, 0.01)
        if tour.has_next:
            tour.advance()
    now[0] = 1.0
    assert tour.transient(120).retry_after == 3.0
    # Too early for both, since the policy ignores Retry-After.
    tour.again(120, 2.0)
    assert (tour.source, tour.has_next) == ("b", False)


def test_sites_that_are_about_equally_good_share_the_files():
    """A random choice may prefer a site if another is 20 % faster, but not if it is 25 % faster."""
    for faster, order in (1.2, ["a", "b"]), (1.25, ["b", "a"]):
        sites = {"a": Site(), "b": Site()}
        for _ in range(ENOUGH):
            sites["a"].succeeded(1000, 1.0)
            sites["b"].succeeded(int(1000 * faster), 1.0)
        # The last one decides whether any site is tried first.
        assert ranked(sites, iter([0.999, 0.0, 0.5]).__next__) == order


def test_any_site_is_tested_again():
    """For a few files, a slow site is asked first, because it may have become fast."""
    sites = {url: Site() for url in "abc"}
    for speed, site in zip((3000, 2000, 1000), sites.values(), strict=True):
        for _ in range(ENOUGH):
            site.succeeded(speed, 1.0)
    assert ranked(sites, iter([0.5, 0.5, 0.5, 0.0, 0.9]).__next__) == ["c", "a", "b"]
    assert ranked(sites, iter([0.5, 0.5, 0.5, 0.5]).__next__) == ["a", "b", "c"]


def test_others():
    """Parts come from sources that weren't asked yet and don't rest."""
    sites = {url: Site() for url in "abcd"}
    tour = Tour(list("abcd"), sites.__getitem__)
    assert tour.others == ["b", "c", "d"]
    tour.blame("b", transient("slow"), 9.0)
    error = transient("no descriptors")
    error.local = True
    tour.blame("c", error, 9.0)
    assert tour.others == ["c", "d"]
    tour.failed(transient("gone"), 0.01)
    tour.advance()
    assert tour.source == "b"
    assert tour.others == ["c", "d"]
    # What failed to bring a part was not asked for the file.
    assert tour.summary() is None


@pytest.mark.parametrize(
    ("row", "is_blamed", "is_alone", "rests"),
    [
        (FAILURES - 1, False, False, False),
        (FAILURES - 2, True, False, True),
        (FAILURES - 2, False, True, True),
    ],
)
def test_helpers(row, is_blamed, is_alone, rests):
    """Good parts reset a mirror's failures, unless a part of it failed or the digest was wrong."""
    mirror = Site()
    for _ in range(row):
        mirror.failed(0.01)
    tour = Tour(["a", "b"], {"a": Site(), "b": mirror}.__getitem__, lambda: 0.0, keep_first=True)
    tour.helped("b")
    if is_blamed:
        tour.blame("b", transient("gone"), 0.01)
    tour.succeeded(10, 0.01, is_alone)
    assert not mirror.is_resting
    mirror.failed(0.01)
    assert mirror.is_resting == rests
