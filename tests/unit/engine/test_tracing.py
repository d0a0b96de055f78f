"""Tests of how the engine reports requests to a tracer."""

import pytest

from pulpcore.plugin.download.futures.engine.tracing import Requests, branch


class Run:
    """The trace of a run, which notes how each request has ended."""

    def __init__(self):
        self.ended = []

    def make(self, method, url, headers, resends):
        """Begin the trace of a request."""
        return Request(url, self.ended)


class Request:
    """The trace of a request."""

    def __init__(self, url, ended):
        self._url, self._ended = url, ended

    def end(self, error=None):
        """Note how the request has ended."""
        self._ended.append((self._url, error))


def test_thread_that_fails():
    """An error of another thread ends its own request only, and not that of the main thread."""
    run, error = Run(), OSError("reset")
    main = Requests(run)
    main.begin("GET", "main", {})

    def fetch():
        with branch(main) as requests:
            requests.begin("GET", "first part", {})
            requests.begin("GET", "second part", {})
            raise error

    with pytest.raises(OSError, match="reset"):
        fetch()
    assert run.ended == [("first part", None), ("second part", error)]
    main.end()
    assert run.ended[2:] == [("main", None)]


def test_no_tracing():
    """Without tracing there is nothing to report to in another thread either."""
    with branch(None) as requests:
        assert requests is None
