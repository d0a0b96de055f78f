"""Tests of FuturesDownloader in the real pulpcore's factory, stages and repair."""

import asyncio
import atexit
import os
import threading
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from servers.files import CutAfter, File, Status


@pytest.fixture
def loop():
    """Provide the event loop that pulpcore finds by `get_event_loop()`."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


@pytest.fixture(scope="session")
def pools(pulp) -> None:
    """Start the threads that pulpcore and asgiref keep, which are no leak of a test."""
    from asgiref.sync import SyncToAsync

    from pulpcore.download.base import THREADPOOL

    SyncToAsync.single_thread_executor.submit(int).result()
    barrier = threading.Barrier(THREADPOOL._max_workers)
    for future in [THREADPOOL.submit(barrier.wait) for _ in range(barrier.parties)]:
        future.result()


@pytest.fixture
def hooked(pools, loop, monkeypatch):
    """Have each file remote of pulp_file download with FuturesDownloader; returns the factories."""
    from pulp_file.app.models import FileRemote

    plugin = import_module("pulp_downloader")
    made = []

    def factory(remote) -> Any:
        if not hasattr(remote, "_download_factory"):
            made.append(plugin.Downloads.download_factory.fget(remote))
        return remote._download_factory

    monkeypatch.setattr(FileRemote, "download_factory", property(factory))
    yield made
    for each in made:
        loop.run_until_complete(each._session.close())
        # It would ask for an event loop when the interpreter ends.
        atexit.unregister(each._session_cleanup)


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
    """What was passed to a replaced `handle_data` can't be taken back: another version fails.

    The error isn't one that the content app takes for "nothing was sent yet".
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


def test_errors(hooked, loop, workdir, file_server, synced) -> None:
    """Callers can tell a status and a mismatch. No file is left, and no secret is in the error."""
    import aiohttp

    from pulpcore.plugin.exceptions import DigestValidationError, SizeValidationError

    server = file_server({"/file": b"content"})
    server.faults = lambda index, request: Status(403) if "secret" in request.target else None
    remote, _ = synced(server, max_retries=1)
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        remote.get_downloader(url=server.url("/file?token=secret")).fetch()
    assert caught.value.status == 403
    assert "secret" not in f"{caught.value!s} {caught.value!r}"
    with pytest.raises(DigestValidationError):
        remote.get_downloader(
            url=server.url("/file"), expected_digests={"sha256": "0" * 64}
        ).fetch()
    with pytest.raises(SizeValidationError):
        remote.get_downloader(url=server.url("/file"), expected_size=3).fetch()
    with pytest.raises(ValueError, match="request_kwargs: data isn't supported"):
        loop.run_until_complete(
            remote.get_downloader(url=server.url("/file")).run({"request_kwargs": {"data": 1}})
        )
    assert not [path for path in workdir.rglob("*") if path.is_file()]


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


def test_pulp_errors(pulp, file_server, tmp_path) -> None:
    """`pulp_errors()` raises pulpcore's own error for a status, a mismatch and the network."""
    from pulpcore.plugin.download.futures import HttpDownload, SizeValidation
    from pulpcore.plugin.download.futures.pulp import pulp_errors
    from pulpcore.plugin.exceptions import (
        HttpResponseError,
        PulpException,
        RemoteConnectionError,
        SizeValidationError,
    )

    server = file_server({"/file": b"content"})

    def run(url, *validations):
        download = HttpDownload(url, tmp_path / "file")
        download.retry = None
        download.validations.extend(validations)
        with pulp_errors():
            download()

    with pytest.raises(HttpResponseError, match="404"):
        run(server.url("/missing?token=secret"))
    with pytest.raises(SizeValidationError):
        run(server.url("/file"), SizeValidation(3))
    with pytest.raises(RemoteConnectionError, match="refused"):
        run("http://127.0.0.1:1/file")
    with pytest.raises(PulpException, match=r"is not valid|url"):
        run("http://[/")
