"""Downloading by HTTP, on requests and urllib3."""

from .download import HttpDownload

__all__ = ["HttpDownload"]
