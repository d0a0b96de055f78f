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

What is anticipated and fatal is raised as one of these; what is a bug is raised as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import redact

if TYPE_CHECKING:
    from .download import Download


class Facts(NamedTuple):
    """What was known of a download when it failed."""

    url: str
    """The URL, redacted."""
    received: int = 0
    """Bytes of the content that were there."""
    expected: int | None = None
    """Bytes that the content has, where it was said."""
    status: int = 0
    """The status of the last reply, 0 without one."""
    attempt: int = 0
    """The number of the attempt that failed, from 1; 0 if none was begun."""
    seconds: float = 0.0
    """The time since the run began."""

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
    """A download failed. The root of all errors that are raised on purpose.

    Attributes:
        facts (Facts | None): The URL (redacted), bytes received and expected, status, attempt and
            time.
        transient (bool): It may well work when tried again later.
        retry_after (float | None): Seconds after which the server said that it would be ready.
        refused (bool): The host refused as one does that has too many connections. That is no
            failure while other attempts are being made there.
        local (bool): Something ran out on this machine, such as file descriptors: it is no failure
            of the host.
    """

    download: Download | None = None
    """The download that failed; None after unpickling."""

    reason: str = ""
    """What happened, in words a person can act on."""

    facts: Facts | None = None
    transient: bool = False
    retry_after: float | None = None
    refused: bool = False
    local: bool = False

    def __init__(self, download: Download | str | None = None, reason: str = "") -> None:
        """Make an error.

        Args:
            download: The download that failed. A str alone is taken as the reason.
            reason: What happened.
        """
        if isinstance(download, str):
            reason = reason or download
            download = None
        # Not the download itself: what is in args is pickled, printed and kept alive.
        super().__init__(reason)
        self.download = download
        self.reason = reason

    def __str__(self) -> str:
        """One line: URL, reason, received of expected, status, attempt, time. No secret."""
        reason = redact.text(" ".join(str(self.reason).split())) or type(self).__name__
        if self.facts is not None:
            return f"{self.facts.url}: {reason} ({self.facts})"
        if self.download is not None:
            return f"{redact.url(str(self.download.url))}: {reason}"
        return reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the download, which holds locks and sockets."""
        state = dict(self.__dict__, download=None)
        if self.facts is None and self.download is not None:
            state["facts"] = Facts(redact.url(str(self.download.url)))
        return _restore, (type(self), self.args), state


class DownloadFailed(DownloadError):
    """The content could not be fetched, or could not be written."""


class NotFound(DownloadFailed):
    """There is nothing at the URL."""


class NotAuthorized(DownloadFailed):
    """Access was denied, or the other side could not be trusted (TLS)."""


class ValidationError(DownloadError):
    """A validation failed."""


class MismatchError(ValidationError):
    """The content is not what was expected.

    Attributes:
        expected (int | str): What was expected.
        actual (int | str): What was found.
    """

    def __init__(
        self,
        expected: int | str,
        actual: int | str,
        download: Download | None = None,
        reason: str = "",
    ) -> None:
        """Make an error.

        Args:
            expected: What was expected.
            actual: What was found.
            download: The download that failed.
            reason: What happened; made of the other two by default.
        """
        super().__init__(download, reason or f"expected {expected}, but got {actual}")
        self.expected = expected
        self.actual = actual


class SizeMismatch(MismatchError):
    """The content has another size (bytes)."""


class DigestMismatch(MismatchError):
    """The content has another digest (hex)."""


def transient(reason: str) -> DownloadFailed:
    """Make the error of what may well work when tried again later.

    Args:
        reason: What happened.
    """
    error = DownloadFailed(reason)
    error.transient = True
    return error


def _restore(cls: type[DownloadError], args: tuple[Any, ...]) -> DownloadError:
    # Not by calling the class: a subclass may be made of other arguments than its args.
    error = Exception.__new__(cls)
    error.args = args
    return error
