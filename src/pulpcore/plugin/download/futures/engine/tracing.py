"""The interface through which the engine reports runs and their requests to a tracer.

Without a :class:`Tracing` in the download's record, nothing is called.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .subject import Download


class RequestTrace(ABC):
    """The trace of one request, or of a whole attempt of a protocol without traced requests."""

    @abstractmethod
    def replied(self, status: int) -> None:
        """Note the status of the reply.

        Args:
            status: The status.
        """

    @abstractmethod
    def end(self, error: BaseException | None = None) -> None:
        """End the trace. It is called once.

        Args:
            error: Why the request failed; None if it succeeded, or if the status tells the failure.
        """


class RunTrace(ABC):
    """The trace of one run. Any thread may call :meth:`make`."""

    @abstractmethod
    def make(
        self, method: str, url: str, headers: MutableMapping[str, str], resends: int
    ) -> RequestTrace:
        """Begin the trace of a request that is about to be sent.

        Args:
            method: The method; '' for an attempt of a protocol without traced requests.
            url: The URL, redacted.
            headers: The headers of the request. This adds those that carry the trace context.
            resends: How many requests were sent before for the same download, in this run.
        """

    @abstractmethod
    def end(self, error: BaseException | None) -> None:
        """End the trace of the run.

        Args:
            error: Why the run failed; None if it succeeded.
        """


class Requests:
    """Traces the requests that one thread sends for a run, one after the other.

    Attributes:
        run (RunTrace): The trace of the run.
    """

    def __init__(self, run: RunTrace) -> None:
        """Begin without requests.

        Args:
            run: The trace of the run.
        """
        self.run = run
        self._sent = 0
        self._current: RequestTrace | None = None

    def make(self, method: str, url: str, headers: MutableMapping[str, str]) -> RequestTrace:
        """Begin the trace of a pipelined request. It becomes the current one by :meth:`take`.

        Args:
            method: As for :meth:`RunTrace.make`.
            url: As for :meth:`RunTrace.make`.
            headers: As for :meth:`RunTrace.make`.
        """
        self._sent += 1
        return self.run.make(method, url, headers, self._sent - 1)

    def begin(self, method: str, url: str, headers: MutableMapping[str, str]) -> RequestTrace:
        """End the trace of the last request, and begin that of the next one.

        Args:
            method: As for :meth:`RunTrace.make`.
            url: As for :meth:`RunTrace.make`.
            headers: As for :meth:`RunTrace.make`.
        """
        self.end()
        self._current = self.make(method, url, headers)
        return self._current

    def take(self, request: RequestTrace) -> None:
        """Make the trace of a pipelined request the current one, because its reply is used.

        Args:
            request: The trace.
        """
        self._current = request

    def end(self, error: BaseException | None = None) -> None:
        """End the trace of the current request, if there is one.

        Args:
            error: Why it failed; None if it succeeded.
        """
        current, self._current = self._current, None
        if current is not None:
            current.end(error)


@contextlib.contextmanager
def branch(main: Requests | None) -> Iterator[Requests | None]:
    """Trace the requests that another thread sends for the same run.

    Args:
        main: Traces the requests of the download's thread; None for no tracing.

    Yields:
        Traces the requests of the calling thread; None without ``main``.
    """
    if main is None:
        yield None
        return
    mine, error = Requests(main.run), None
    try:
        yield mine
    except BaseException as caught:
        error = caught
        raise
    finally:
        mine.end(error)
        del error


class Tracing(ABC):
    """Makes the traces of runs. It is attached to a download (``Record.tracing``) or to a batch."""

    @abstractmethod
    def begin(self, download: Download) -> RunTrace:
        """Begin the trace of a run. This is called in the ``contextvars`` context of the run.

        Args:
            download: The download.
        """
