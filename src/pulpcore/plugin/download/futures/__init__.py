"""Download many files in parallel with threads. Each appears only when it is complete and verified.

A download is a callable. Call it, or let a :class:`Batch` run many downloads on a pool of threads.
A download passes each buffer of the content to a :class:`Writer`, to each :class:`Validation`, and
to the handlers of the :class:`.Event` ``FETCHED``.
"""

import typing as _typing

# Imported first: it raises a clear error for an unusable dependency, before other modules fail.
from .net import dependencies as _dependencies  # noqa: F401 - importing it is its use

# isort: split
from .batch import Batch, Plan
from .download import Download
from .error import DownloadError, DownloadFailed, NotAuthorized, NotFound, ValidationError
from .event import Event
from .factory import Factory
from .file import FileDownload
from .ftp import FtpDownload
from .http import HttpDownload
from .mirrors import Metalink, Mirrors
from .settings import SSL, Limits, Settings, Timeout, User
from .tools import DownloadMonitor
from .validation import (
    DigestMismatch,
    DigestValidation,
    MismatchError,
    SizeMismatch,
    SizeValidation,
    Validation,
)
from .writer import BufferWriter, FileWriter, Writer

__all__ = [
    "SSL",
    "Batch",
    "BufferWriter",
    "DigestMismatch",
    "DigestValidation",
    "Download",
    "DownloadError",
    "DownloadFailed",
    "DownloadMonitor",
    "Event",
    "Factory",
    "FileDownload",
    "FileWriter",
    "FtpDownload",
    "HttpDownload",
    "Limits",
    "Metalink",
    "Mirrors",
    "MismatchError",
    "NotAuthorized",
    "NotFound",
    "Plan",
    "Settings",
    "SizeMismatch",
    "SizeValidation",
    "Timeout",
    "User",
    "Validation",
    "ValidationError",
    "Writer",
]

if _typing.TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Return ``__version__``. Not at import: reading the metadata opens files."""
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - see above

            return version("pulpcore-futures")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
