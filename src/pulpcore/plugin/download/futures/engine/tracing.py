"""What the engine tells of a run to whoever traces it: the run, and each request of it.

A record that has no :class:`Tracing` costs nothing: nobody is called.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .subject import Download


class RequestTrace(ABC):
    """The trace of one request, or of an attempt of a protocol that doesn't tell its requests."""

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
            error: Why it failed; None if it succeeded, or if its status says all.
        """


class RunTrace(ABC):
    """The trace of one run. Any thread may call :meth:`make`."""

    @abstractmethod
    def make(
        self, method: str, url: str, headers: MutableMapping[str, str], resends: int
    ) -> RequestTrace:
        """Begin the trace of a request that is about to be sent.

        Args:
            method: The method; '' for an attempt of a protocol that doesn't tell its requests.
            url: The URL, redacted.
            headers: The headers of the request, to which this adds those that carry the trace.
            resends: How many requests were sent for the same before.
        """

    @abstractmethod
    def end(self, error: BaseException | None) -> None:
        """End the trace of the run.

        Args:
            error: Why the run failed; None if it succeeded.
        """


class Requests:
    """Traces the requests of a run that are sent one after the other.

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
        """Begin the trace of a request that is pipelined. It isn't the current one yet.

        Args:
            method: As for :meth:`RunTrace.make`.
            url: As for :meth:`RunTrace.make`.
            headers: As for :meth:`RunTrace.make`.
        """
        self._sent += 1
        return self.run.make(method, url, headers, self._sent - 1)

    def begin(self, method: str, url: str, headers: MutableMapping[str, str]) -> RequestTrace:
        """Begin the trace of the next request; that of the one before ends.

        Args:
            method: As for :meth:`RunTrace.make`.
            url: As for :meth:`RunTrace.make`.
            headers: As for :meth:`RunTrace.make`.
        """
        self.end()
        self._current = self.make(method, url, headers)
        return self._current

    def take(self, request: RequestTrace) -> None:
        """Go on with the trace of a request that was pipelined, and whose reply counts.

        Args:
            request: The trace.
        """
        self._current = request

    def end(self, error: BaseException | None = None) -> None:
        """End the trace of the last request: its body is read, or it failed.

        Args:
            error: Why it failed; None if it succeeded.
        """
        current, self._current = self._current, None
        if current is not None:
            current.end(error)


@contextlib.contextmanager
def branch(main: Requests | None) -> Iterator[Requests | None]:
    """Trace requests that another thread sends for the same run.

    Args:
        main: What traces those of the run; None for nothing.
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
        """Begin the trace of a run, in the ``contextvars`` context of the run.

        Args:
            download: The download.
        """
