"""What ran out on this machine, which is no failure of the host."""

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
    """Return what ran out on this machine, in words; None if an error has another cause.

    Args:
        error: The error. The errors behind it count, too.
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
        # urllib3 keeps what happened in `reason` or in its arguments.
        pending += [cause.__cause__, getattr(cause, "reason", None), *cause.args]
    return None


def from_used_up(error: BaseException) -> DownloadFailed | None:
    """Make the error for what ran out on this machine.

    Such an error is transient, for other downloads give back what they use when they end.

    Args:
        error: What was raised.

    Returns:
        The error, with ``local`` set; None if nothing ran out.
    """
    words = _WORDS.get(error.errno or 0) if isinstance(error, OSError) else None
    if words is None:
        return None
    failure = transient(words)
    failure.local = True
    return failure
