"""Tests of the sources of a run that no download of a mirror shows."""

from stubs import Stub

from pulpcore.plugin.download.futures.engine.protocol import Protocol
from pulpcore.plugin.download.futures.engine.sources import Site, Source, Tour


def test_other_protocols():
    """A protocol that knows no mirrors ignores those that a download has."""
    download = Stub()
    download.mirrors = ["test://other"]
    download()
    assert Protocol().sources(download) == ()
    assert Protocol().site("test://other") == "test://other"
    assert not Protocol().is_conditional(download)


def test_doubles():
    """A URL that comes twice is asked once, and what its mirrors know of it counts."""
    known = Site()
    known.failed(9.0)
    tour = Tour(["a", "b", "b", Source("a", known)], lambda _: Site())
    assert tour.source == "b"
    tour.advance()
    assert tour.source == "a"
    assert not tour.has_next
