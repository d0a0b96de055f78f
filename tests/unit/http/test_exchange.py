"""Tests of an HTTP request and the redirects that follow it."""

import pytest

from pulpcore.plugin.download.futures import DownloadFailed, HttpDownload
from pulpcore.plugin.download.futures.http.exchange import Exchange


@pytest.mark.parametrize("url", ["http//typo", "ftp://h/", "http://h:s3cret/", None, ""])
def test_changed_url(url):
    """An invalid URL that a handler sets after the check is a clear error."""
    download = HttpDownload("http://h/", None)
    exchange = Exchange(download, {}, lambda: None)
    download.url = url
    with pytest.raises(DownloadFailed, match=r"^url: ") as caught:
        exchange.run()
    assert "s3cret" not in str(caught.value)
    assert exchange.urls == []
