"""A remote whose stages download with this library."""

from pulpcore.plugin.download import DownloaderFactory  # type: ignore[attr-defined]
from pulpcore.plugin.download.futures.pulp import FuturesDownloader


class Downloads:
    """A mixin for a remote; put it before ``Remote``."""

    @property
    def download_factory(self):
        """The factory of the remote's downloaders."""
        if not hasattr(self, "_download_factory"):
            self._download_factory = DownloaderFactory(
                self,
                downloader_overrides={"http": FuturesDownloader, "https": FuturesDownloader},
            )
        return self._download_factory
