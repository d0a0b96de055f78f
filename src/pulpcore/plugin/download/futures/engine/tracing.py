"""What the engine tells of a run to whoever traces it: the run, and each request of it.

A record that has no :class:`Tracing` costs nothing: nobody is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping
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
    """The trace of one run. One thread at a time uses it, but :meth:`make` may be called by any."""

    _current: RequestTrace | None = None

    @abstractmethod
    def make(self, method: str, url: str, headers: MutableMapping[str, str]) -> RequestTrace:
        """Begin the trace of a request that is about to be sent.

        Args:
            method: The method; '' for an attempt of a protocol that doesn't tell its requests.
            url: The URL, redacted.
            headers: The headers of the request, to which this adds those that carry the trace.
        """

    @abstractmethod
    def end(self, error: BaseException | None) -> None:
        """End the trace of the run.

        Args:
            error: Why the run failed; None if it succeeded.
        """

    def request(self, method: str, url: str, headers: MutableMapping[str, str]) -> RequestTrace:
        """Begin the trace of the next request of the attempt; that of the one before ends.

        Args:
            method: As for :meth:`make`.
            url: As for :meth:`make`.
            headers: As for :meth:`make`.
        """
        self.end_attempt()
        self._current = self.make(method, url, headers)
        return self._current

    def take(self, request: RequestTrace) -> None:
        """Go on with the trace of a request that was pipelined, and whose reply counts.

        Args:
            request: The trace.
        """
        self._current = request

    def end_attempt(self, error: BaseException | None = None) -> None:
        """End the trace of the request: its body is read, or it failed.

        Args:
            error: Why the attempt failed; None if it succeeded.
        """
        current, self._current = self._current, None
        if current is not None:
            current.end(error)


class Tracing(ABC):
    """Makes the traces of runs. It is attached to a download (``Record.tracing``) or to a batch."""

    @abstractmethod
    def begin(self, download: Download) -> RunTrace:
        """Begin the trace of a run, in the ``contextvars`` context of the run.

        Args:
            download: The download.
        """
