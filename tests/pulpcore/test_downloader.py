"""Tests of FuturesDownloader in the real pulpcore's factory, stages and repair."""

import asyncio
import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from servers.files import CutAfter, File


def threads() -> list[str]:
    """Return the names of the threads that download."""
    return [each.name for each in threading.enumerate() if each.name.startswith("batch-")]


def test_sync(hooked, task, site, synced) -> None:
    """The unchanged sync of pulp_file gets all files from a server that breaks each of them."""
    from pulp_file.app.tasks.synchronizing import synchronize

    from pulpcore.plugin.models import ContentArtifact

    files = {f"{number}": os.urandom(300_000) for number in range(20)}
    server = site(files)
    broken = set()

    def fault(index, request):
        if request.path in broken:
            return None
        broken.add(request.path)
        return CutAfter(100)

    server.faults = fault
    remote, repository = synced(server)
    synchronize(remote.pk, repository.pk, mirror=False)
    found = {}
    for row in ContentArtifact.objects.filter(content__in=repository.latest_version().content):
        with row.artifact.file.open() as file:
            found[row.relative_path] = file.read()
    assert found == files
    assert threads() == []


def test_breaks_twenty_times(hooked, loop, workdir, file_server, synced) -> None:
    """A file whose transfer breaks twenty times arrives, though `max_retries` is 3."""
    content = os.urandom(2_000_000)
    server = file_server({"/file": File(content, etag='"1"')})
    server.faults = lambda index, request: CutAfter(90_000) if index < 20 else None
    remote, _ = synced(server, max_retries=3)
    downloader = remote.get_downloader(
        url=server.url("/file"),
        expected_digests={"sha256": sha256(content).hexdigest()},
        expected_size=len(content),
    )
    result = downloader.fetch()
    assert Path(result.path).read_bytes() == content
    assert result.artifact_attributes["sha256"] == sha256(content).hexdigest()
    assert result.artifact_attributes["size"] == len(content)
    assert result.headers["content-length"] == str(len(content))
    assert server.count == 21


def test_disk(hooked, loop, workdir, file_server, synced, monkeypatch) -> None:
    """A slow disk doesn't block the event loop: the file is on the disk before it goes on."""
    server = file_server({"/file": os.urandom(1000)})
    remote, _ = synced(server)
    synced_by = []
    original = os.fsync

    def fsync(number):
        synced_by.append((threading.current_thread().name, os.fstat(number).st_size))
        original(number)

    monkeypatch.setattr(os, "fsync", fsync)
    remote.get_downloader(url=server.url("/file")).fetch()
    name, size = synced_by[0]
    assert name.startswith("batch-")
    assert size == 1000


def test_replaced_handler(hooked, loop, workdir, file_server, synced) -> None:
    """A replaced `handle_data`, as the content app has, gets each byte once although it breaks."""
    content = os.urandom(1_000_000)
    server = file_server({"/file": File(content, etag='"1"')})
    server.faults = lambda index, request: CutAfter(300_000) if index == 0 else None
    remote, _ = synced(server)
    got, heads = [], []

    async def ready(headers):
        heads.append(dict(headers))

    downloader = remote.get_downloader(url=server.url("/file"), headers_ready_callback=ready)
    original = downloader.handle_data

    async def handle(data):
        await asyncio.sleep(0)
        got.append(data)
        await original(data)

    downloader.handle_data = handle
    result = downloader.fetch()
    assert b"".join(got) == Path(result.path).read_bytes() == content
    assert len(heads) == 1


def test_broken_after_data(hooked, loop, workdir, file_server, synced) -> None:
    """Data that was passed to a replaced `handle_data` can't be withdrawn: a new version fails.

    The content app doesn't take the error for "nothing was sent yet".
    """
    import aiohttp

    server = file_server({"/file": File(os.urandom(500_000), etag='"1"')})

    def fault(index, request):
        if index == 0:
            return CutAfter(300_000)
        server.files["/file"] = File(os.urandom(500_000), etag='"2"')
        return None

    server.faults = fault
    remote, _ = synced(server)
    downloader = remote.get_downloader(url=server.url("/file"))

    async def handle(data):
        pass

    downloader.handle_data = handle
    with pytest.raises(aiohttp.ClientPayloadError):
        downloader.fetch()
    assert downloader.path is None


def test_cancelled(hooked, loop, workdir, file_server, synced) -> None:
    """Cancelling the task that waits stops the download, also within `handle_data`."""
    server = file_server({"/file": os.urandom(1_000_000)})
    remote, _ = synced(server)
    downloader = remote.get_downloader(url=server.url("/file"))

    async def main():
        begun = asyncio.Event()

        async def handle(data):
            begun.set()
            await asyncio.Event().wait()

        downloader.handle_data = handle
        running = asyncio.ensure_future(downloader.run())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    loop.run_until_complete(main())
    assert threads() == []


def test_tls(hooked, loop, workdir, file_server, tls, pem, synced) -> None:
    """The CA and the client certificate of a remote count, and a wrong CA is a connection error."""
    import aiohttp

    server = file_server({"/file": b"content"}, tls=tls.server(client_ca=tls.ca))
    remote, _ = synced(server, **pem)
    result = remote.get_downloader(url=server.url("/file")).fetch()
    assert Path(result.path).read_bytes() == b"content"
    other, _ = synced(server)
    with pytest.raises(aiohttp.ClientConnectionError):
        other.get_downloader(url=server.url("/file")).fetch()


def test_repair(hooked, loop, task, site, synced) -> None:
    """The repair of pulpcore fetches a corrupted artifact again."""
    from pulp_file.app.tasks.synchronizing import synchronize

    from pulpcore.app.tasks.repository import _repair_ca
    from pulpcore.plugin.models import ContentArtifact

    files = {"file": os.urandom(1000)}
    remote, repository = synced(site(files))
    synchronize(remote.pk, repository.pk, mirror=False)
    rows = ContentArtifact.objects.filter(content__in=repository.latest_version().content)
    row = rows.select_related("artifact").get()
    Path(row.artifact.file.path).write_bytes(b"corrupted")
    assert loop.run_until_complete(_repair_ca(row))
    with row.artifact.file.open() as file:
        assert file.read() == files["file"]
