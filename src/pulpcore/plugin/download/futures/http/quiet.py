"""Keeping secrets out of the log records that downloads cause.

Our own engine logs nothing by urllib3. But a caller may mount the adapter of requests on a session,
and urllib3 then logs the path and query of each request at DEBUG. A filter on its loggers redacts
the records that are logged within a download. What others do with urllib3 is left alone.
"""

from __future__ import annotations

import functools
import logging
from contextvars import ContextVar

from .. import redact

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


class quiet:  # noqa: N801 - used as a function, as contextlib's are; a generator costs thrice as much
    """Redact what urllib3 logs within the ``with``."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        _install()
        self._token = _inside.set(True)

    def __exit__(self, *unused: object) -> None:
        _inside.reset(self._token)
