"""Errors that mean that this machine is out of resources. They say nothing about the host."""

from __future__ import annotations

import errno

from ..error import DownloadFailed, transient

_WORDS = {
    errno.EMFILE: "this process has no file descriptors left (see `ulimit -n`)",
    errno.ENFILE: "this machine has no file descriptors left",
    errno.ENOMEM: "this machine has no memory left for the connection",
    errno.ENOBUFS: "this machine has no memory left for the connection",
    errno.EADDRNOTAVAIL: "this machine has no free port, or no address, for the connection",
}


def used_up(error: BaseException) -> str | None:
    """Return which resource this machine has run out of; None if the error has another cause.

    Args:
        error: The error. Its causes are searched too.
    """
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in _WORDS:
            return _WORDS[cause.errno]
        # urllib3 stores the original error in `reason` or in the arguments.
        pending += [cause.__cause__, getattr(cause, "reason", None), *cause.args]
    return None


def from_used_up(error: BaseException) -> DownloadFailed | None:
    """Translate an error to a transient DownloadFailed if this machine is out of resources.

    It is transient because other downloads free their resources when they end.

    Args:
        error: The exception.

    Returns:
        The error, with ``local`` set; None if the exception has another cause.
    """
    words = _WORDS.get(error.errno or 0) if isinstance(error, OSError) else None
    if words is None:
        return None
    failure = transient(words)
    failure.local = True
    return failure
