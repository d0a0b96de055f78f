"""The errors of a download.

::

    DownloadError
    ├── DownloadFailed
    │   ├── NotFound
    │   └── NotAuthorized
    └── ValidationError
        └── MismatchError
            ├── SizeMismatch
            └── DigestMismatch

A failure that the library anticipates is raised as one of these. Any other exception is a bug, in
the library or in a handler, writer or validation, and is raised unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import redact

if TYPE_CHECKING:
    from .download import Download


class Facts(NamedTuple):
    """The state of a download when it failed."""

    url: str
    """The URL, redacted."""
    received: int = 0
    """The number of bytes of the content that were fetched."""
    expected: int | None = None
    """The size of the content (bytes); None if it is unknown."""
    status: int = 0
    """The status of the last reply; 0 without a reply."""
    attempt: int = 0
    """The number of the attempt that failed, from 1; 0 if no attempt began."""
    seconds: float = 0.0
    """The time since the run began (seconds)."""

    def __str__(self) -> str:
        of = "" if self.expected is None else f" of {self.expected}"
        parts = [f"received {self.received}{of} bytes"]
        if self.status:
            parts.append(f"status {self.status}")
        if self.attempt:
            parts.append(f"attempt {self.attempt}")
        parts.append(f"{self.seconds:.1f} s")
        return ", ".join(parts)


class DownloadError(Exception):
    """A download failed. The base class of all failures that the library anticipates.

    Attributes:
        facts (Facts | None):
            The URL (redacted), bytes received and expected, status, attempt and time.
        transient (bool):
            A later retry may succeed.
        retry_after (float | None):
            The wait that the server asked for (seconds; RFC 9110 section 10.2.3).
        refused (bool):
            The host refused the connection or the request because it has too many. This counts as a
            failure only if no other attempt to the host is running.
        local (bool):
            The cause is a lack of a resource of this machine, such as file descriptors, and not a
            failure of the host.
        auth_failed (bool):
            The cause is ``auth`` of the download, such as a server that gives no token, and not the
            host.
    """

    download: Download | None = None
    """The download that failed; None after unpickling."""

    reason: str = ""
    """What happened, and what to do."""

    facts: Facts | None = None
    transient: bool = False
    retry_after: float | None = None
    refused: bool = False
    local: bool = False
    auth_failed: bool = False

    def __init__(self, download: Download | str | None = None, reason: str = "") -> None:
        """Store the download and the reason.

        Args:
            download: The download that failed. A str is used as the reason.
            reason: What happened.
        """
        if isinstance(download, str):
            reason = reason or download
            download = None
        # The download isn't in args, which are pickled, printed in tracebacks and kept alive.
        super().__init__(reason)
        self.download = download
        self.reason = reason

    def __str__(self) -> str:
        """Return one line without secrets: the URL, the reason, and the facts in parentheses."""
        reason = redact.text(" ".join(str(self.reason).split())) or type(self).__name__
        if self.facts is not None:
            return f"{self.facts.url}: {reason} ({self.facts})"
        if self.download is not None:
            return f"{redact.url(str(self.download.url))}: {reason}"
        return reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the download, which has locks and sockets."""
        state = dict(self.__dict__, download=None)
        if self.facts is None and self.download is not None:
            state["facts"] = Facts(redact.url(str(self.download.url)))
        return _restore, (type(self), self.args), state


class DownloadFailed(DownloadError):
    """The content could not be fetched or written."""


class NotFound(DownloadFailed):
    """The URL has no content (HTTP status 404 or 410, for example)."""


class NotAuthorized(DownloadFailed):
    """Access was denied, or the server's TLS certificate could not be verified."""


class ValidationError(DownloadError):
    """A validation failed.

    Attributes:
        expected (int | str | None):
            What the validation expected, such as a size (bytes) or a digest (hex); None if it
            compares nothing.
        actual (int | str | None):
            What the content has instead.
    """

    expected: int | str | None = None
    actual: int | str | None = None


class MismatchError(ValidationError):
    """The size or the digest of the content is wrong."""

    expected: int | str
    actual: int | str

    def __init__(
        self,
        expected: int | str,
        actual: int | str,
        download: Download | None = None,
        reason: str = "",
    ) -> None:
        """Store both values.

        Args:
            expected: The expected size (bytes) or digest (hex).
            actual: The size or digest of the content.
            download: The download that failed.
            reason: What happened. By default a sentence with both values.
        """
        super().__init__(download, reason or f"expected {expected}, but got {actual}")
        self.expected = expected
        self.actual = actual


class SizeMismatch(MismatchError):
    """The size of the content is wrong."""

    expected: int
    actual: int


class DigestMismatch(MismatchError):
    """The digest of the content is wrong."""

    expected: str
    actual: str


def transient(reason: str) -> DownloadFailed:
    """Create an error whose ``transient`` is True.

    Args:
        reason: What happened.
    """
    error = DownloadFailed(reason)
    error.transient = True
    return error


def _restore(cls: type[DownloadError], args: tuple[Any, ...]) -> DownloadError:
    # Without calling the class: the __init__ of a subclass may have other arguments.
    error = Exception.__new__(cls)
    error.args = args
    return error
