"""Downloads by HTTP, based on requests and urllib3."""

from .download import HttpDownload

__all__ = ["HttpDownload"]
