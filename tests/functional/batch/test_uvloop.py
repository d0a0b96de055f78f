"""Test of a batch in the event loop of uvloop, if that is installed."""

from collections.abc import Callable

import pytest

from pulpcore.plugin.download.futures import Batch, BufferWriter, DownloadFailed, HttpDownload

uvloop = pytest.importorskip("uvloop")


def test_batch(file_server: Callable[..., object]) -> None:
    """In uvloop, plans arrive in the order completed, report failures, and the batch ends."""
    server = file_server({"/a": b"A", "/b": b"B"})

    async def downloads() -> list[object]:
        urls = [server.url(path) for path in ("/a", "/none", "/b")]
        async with Batch(HttpDownload(url, BufferWriter()) for url in urls) as batch:
            found: list[object] = []
            async for plan in batch():
                try:
                    found.append(plan.result().writer.content())
                except DownloadFailed as error:
                    found.append(type(error).__name__)
            return found

    assert sorted(uvloop.run(downloads())) == ["A", "B", "NotFound"]
