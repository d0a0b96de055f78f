"""Redacts the log records of urllib3 during downloads.

Our own engine doesn't log through urllib3. But a caller may mount the adapter of requests on a
session, and then urllib3 logs the path and query of each request at DEBUG. A filter on urllib3's
loggers redacts records of the downloading thread. It leaves other users of urllib3 alone.
"""

from __future__ import annotations

import functools
import logging
from contextvars import ContextVar

from ... import redact

_LOGGERS = (
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)

_inside: ContextVar[bool] = ContextVar("inside_of_a_download", default=False)


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if _inside.get():
            record.msg = redact.text(record.getMessage())
            record.args = ()
            record.exc_info = None
        return True


@functools.cache
def _install() -> None:
    redaction = _Redaction()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(redaction)


class quiet:  # noqa: N801 - named like those of contextlib, whose generators are 3 times slower
    """Within the ``with``, redact urllib3's log records of this context."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        _install()
        self._token = _inside.set(True)

    def __exit__(self, *unused: object) -> None:
        _inside.reset(self._token)
