"""Tests of batches in async code with real servers: transfers and cancellation."""

import asyncio
import os
import signal
import threading

import pytest
from servers.files import StallAfter, Status

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    FileWriter,
    HttpDownload,
    NotFound,
    Timeout,
)

SECONDS = 40  # less than any time-out here
SHUT_DOWN = "the batch was shut down"


def run(main):
    """Run a coroutine function, which must end."""

    async def bounded():
        async with asyncio.timeout(SECONDS):
            return await main()

    return asyncio.run(bounded())


async def until(condition):
    """Let the event loop run until the condition holds."""
    while not condition():
        await asyncio.sleep(0.001)


def listed(downloads, kind):
    """Give the downloads as an iterable or as an async iterable."""

    async def source():
        for download in downloads:
            await asyncio.sleep(0)
            yield download

    return downloads if kind == "sync" else source()


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_many(file_server, tmp_path, kind, no_leaks):
    """An async batch downloads each file over at most one connection a thread.

    Plans report the failures.
    """
    files = {f"/{n}": os.urandom(n * 37) for n in range(100)}
    server = file_server(files)

    async def main():
        downloads = (
            HttpDownload(server.url(f"/{n}"), FileWriter(tmp_path / str(n))) for n in range(110)
        )
        failed = set()
        async with Batch(listed(downloads, kind), concurrent=4, backlog=16) as batch:
            async for plan in batch():
                try:
                    plan.result()
                except NotFound:
                    failed.add(plan.download.url)
        assert failed == {server.url(f"/{n}") for n in range(100, 110)}

    run(main)
    for path, content in files.items():
        assert (tmp_path / path.removeprefix("/")).read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 100
    assert server.count == 110
    assert server.connections <= 4
    server.until(lambda: server.open_connections == 0)


@both
@pytest.mark.parametrize(
    "fault",
    [StallAfter(0, whole=True), StallAfter(70_000), Status(503, {"Retry-After": "100"})],
    ids=["no reply", "in the body", "back-off"],
)
def test_cancelled(file_server, tmp_path, kind, fault, no_leaks):
    """Cancelling a task stops the transfers of its batch at once and keeps the old file.

    The server would stall, or make us wait, for longer than this test may take.
    """
    server = file_server({"/a": os.urandom(200_000)}, faults=lambda *_: fault)
    (tmp_path / "0").write_bytes(b"old")
    downloads = [
        HttpDownload(server.url("/a"), FileWriter(tmp_path / f"{n}"), timeout=Timeout(50, 50))
        for n in range(6)
    ]
    batches = []

    async def work():
        async with Batch(listed(downloads, kind), concurrent=3) as batch:
            batches.append(batch)
            async for _ in batch():
                pass

    async def main():
        task = asyncio.create_task(work())
        # A download in its back-off holds no thread, so others may have begun beside these.
        await until(lambda: server.count >= 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [thread for thread in threading.enumerate() if thread.name.startswith("batch")] == []
        async for plan in batches[0].iterator:
            assert plan.error.reason == SHUT_DOWN

    run(main)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert (tmp_path / "0").read_bytes() == b"old"
    server.until(lambda: server.open_connections == 0)


def test_interrupted(file_server, tmp_path, no_leaks):
    """Ctrl-C ends the batch of a program that runs in asyncio.run()."""
    server = file_server({"/a": os.urandom(200_000)}, faults=lambda *_: StallAfter(100))
    download = HttpDownload(server.url("/a"), FileWriter(tmp_path / "a"), timeout=Timeout(50, 50))

    async def main():
        async with Batch(listed([download], "async")) as batch:
            waiting = asyncio.ensure_future(anext(batch()))
            await until(lambda: server.count == 1)
            signal.raise_signal(signal.SIGINT)
            await waiting

    # A process that was started in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_side_by_side(file_server):
    """Batches of several tasks run concurrently on one event loop."""
    server = file_server({f"/{n}": str(n).encode() for n in range(30)})

    async def fetch(names):
        downloads = [HttpDownload(server.url(f"/{name}"), BufferWriter()) for name in names]
        async with Batch(listed(downloads, "async"), concurrent=2) as batch:
            return sorted([plan.result().writer.content() async for plan in batch()])

    async def main():
        parts = [range(start, start + 10) for start in (0, 10, 20)]
        found = await asyncio.gather(*map(fetch, parts))
        assert found == [sorted(map(str, part)) for part in parts]

    run(main)
