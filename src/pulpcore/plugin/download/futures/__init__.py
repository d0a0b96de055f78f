"""Download files with threads.

A download is a callable: it is run alone, or with many others on a pool of threads by a
:class:`Batch`. In one loop each buffer goes to a :class:`Writer`, to each :class:`Validation` and
to the handlers of an :class:`.Event`.
"""

# First: it tells what is wrong with a dependency before anything else uses it.
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
from .settings import SSL, Settings, Timeout, User
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
