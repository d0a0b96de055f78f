"""Downloads by FTP, with or without TLS, based on ftplib."""

from .download import FtpDownload

__all__ = ["FtpDownload"]
