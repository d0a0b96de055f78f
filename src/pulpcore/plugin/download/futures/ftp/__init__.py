"""Downloading by FTP, with TLS or without, on ftplib."""

from .download import FtpDownload

__all__ = ["FtpDownload"]
