"""Tests of what FuturesDownloader and `pulp_errors()` raise, and of how often they try."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import CancelledError
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from servers.files import CutAfter, File, Redirect, StallAfter, Status

WRONG = {"sha256": "0" * 64}


@pytest.fixture
def remote(hooked: None, workdir: Path, file_server: Any, synced: Any) -> Callable[..., Any]:
    """Return `remote(server, **fields)`: a remote that tries twice."""
    return lambda server, **fields: synced(server, **{"max_retries": 1, **fields})[0]


def files(workdir: Path) -> list[Path]:
    """Return the files that were left."""
    return [path for path in workdir.rglob("*") if path.is_file()]


def test_status(remote, workdir, file_server) -> None:
    """Callers learn the status of a reply. No secret is in the error, and no file is left."""
    import aiohttp

    server = file_server({})
    server.faults = lambda index, request: Status(403, {"Retry-After": "9", "X-Key": "secret"})
    downloader = remote(server).get_downloader(url=server.url("/file?token=secret"))
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        downloader.fetch()
    assert caught.value.status == 403
    assert dict(caught.value.headers) == {"Retry-After": "9"}
    assert "secret" not in f"{caught.value!s} {caught.value!r}"
    assert server.count == 1
    assert files(workdir) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("DigestValidationError", {"expected_digests": WRONG}),
        ("SizeValidationError", {"expected_size": 3}),
    ],
)
def test_mismatch(remote, workdir, file_server, kind, expected) -> None:
    """A wrong file is tried again, unless `handle_data` was replaced: that gets each byte once."""
    from pulpcore.plugin import exceptions

    content = os.urandom(300_000)
    server = file_server({"/file": content})
    made = remote(server)
    got = []

    async def handle(data):
        got.append(data)

    for is_replaced, count in [(False, 2), (True, 3)]:
        downloader = made.get_downloader(url=server.url("/file"), **expected)
        if is_replaced:
            downloader.handle_data = handle
        with pytest.raises(getattr(exceptions, kind)):
            downloader.fetch()
        assert server.count == count
        assert downloader.path is None
    assert content.startswith(b"".join(got))
    assert files(workdir) == []


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("ClientResponseError", Status(503)),
        ("ClientConnectionError", CutAfter(0, whole=True)),
        ("DigestValidationError", None),
    ],
)
def test_disable_retry_list(remote, loop, workdir, file_server, kind, fault) -> None:
    """An error with a status that `disable_retry_list` names isn't retried."""
    import aiohttp

    from pulpcore.plugin import exceptions

    error = getattr(aiohttp, kind, None) or getattr(exceptions, kind)
    server = file_server({"/file": b"content"}, faults=lambda index, request: fault)
    made = remote(server)
    for listed, count in [((), 2), ((error,), 3)]:
        downloader = made.get_downloader(url=server.url("/file"), expected_digests=WRONG)
        with pytest.raises(error):
            loop.run_until_complete(downloader.run({"disable_retry_list": listed}))
        assert server.count == count
    assert files(workdir) == []


@pytest.mark.parametrize("limit", [{"sock_read_timeout": 0.5}, {"total_timeout": 1.0}])
def test_timeout(remote, workdir, file_server, limit) -> None:
    """A time-out is a connection error, too, if no data was passed on: then callers look elsewhere.

    After that, it isn't.
    """
    import aiohttp

    from pulpcore.plugin.exceptions import TimeoutException

    server = file_server({"/file": os.urandom(1000)})
    made = remote(server, **limit)
    server.faults = lambda index, request: StallAfter(0, whole=True)
    with pytest.raises(TimeoutException) as caught:
        made.get_downloader(url=server.url("/file")).fetch()
    assert isinstance(caught.value, aiohttp.ClientConnectionError)

    server.faults = lambda index, request: StallAfter(500)
    downloader = made.get_downloader(url=server.url("/file"))

    async def handle(data):
        pass

    downloader.handle_data = handle
    with pytest.raises(TimeoutException) as caught:
        downloader.fetch()
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert files(workdir) == []


def test_request_kwargs(remote, loop, workdir, file_server) -> None:
    """Headers and credentials may be those of one request; what isn't supported is an error."""
    import aiohttp

    server = file_server({"/file": b"content"}, user=("me", "password"))
    made = remote(server)
    request = {"auth": aiohttp.BasicAuth("me", "password"), "headers": {"X-Part": "1"}}
    downloader = made.get_downloader(url=server.url("/file"))
    result = loop.run_until_complete(downloader.run({"request_kwargs": request}))
    assert Path(result.path).read_bytes() == b"content"
    assert server.requests[0].header("X-Part") == "1"
    downloader = made.get_downloader(url=server.url("/file"))
    with pytest.raises(ValueError, match="request_kwargs: data isn't supported"):
        loop.run_until_complete(downloader.run({"request_kwargs": {"data": 1}}))


def test_environment(remote, workdir, file_server, proxy, monkeypatch) -> None:
    """The proxy of the environment and a netrc file count, unlike in pulpcore's downloader."""
    server = file_server({"/file": b"content"}, user=("me", "password"))
    made = proxy()
    monkeypatch.setenv("http_proxy", made.url())
    Path(os.environ["HOME"], ".netrc").write_text("machine 127.0.0.1 login me password password")
    remote(server).get_downloader(url=server.url("/file")).fetch()
    assert [request.target for request in made.requests] == [server.url("/file")]


def test_redirect_to_http(remote, workdir, file_server, tls, pem) -> None:
    """A redirect from https to http is followed only where a digest is expected."""
    import aiohttp

    content = b"content"
    plain = file_server({"/file": content})
    server = file_server({"/file": Redirect(plain.url("/file"))}, tls=tls.server())
    made = remote(server, ca_cert=pem["ca_cert"])
    with pytest.raises(aiohttp.ClientError):
        made.get_downloader(url=server.url("/file")).fetch()
    assert plain.count == 0
    digests = {"sha256": sha256(content).hexdigest()}
    made.get_downloader(url=server.url("/file"), expected_digests=digests).fetch()
    assert plain.count == 1


def test_throttler(remote, workdir, file_server) -> None:
    """The remote's throttler is asked before each request, retries included."""
    server = file_server({"/file": File(os.urandom(1000), etag='"1"')})
    server.faults = {0: CutAfter(500)}
    downloader = remote(server, rate_limit=1000).get_downloader(url=server.url("/file"))
    asked = []

    class Throttler:
        async def acquire(self):
            asked.append(server.count)

    assert downloader.download_throttler is not None
    downloader.download_throttler = Throttler()
    downloader.fetch()
    assert asked == [0, 1]


@pytest.mark.parametrize("kind", [ZeroDivisionError, asyncio.CancelledError])
def test_handler_fails(remote, workdir, file_server, kind) -> None:
    """An exception of `handle_data` ends the download without a retry."""
    server = file_server({"/file": b"content"})
    downloader = remote(server).get_downloader(url=server.url("/file"))

    async def handle(data):
        raise kind

    downloader.handle_data = handle
    with pytest.raises(ZeroDivisionError if kind is ZeroDivisionError else CancelledError):
        downloader.fetch()
    assert server.count == 1
    assert files(workdir) == []


def test_sessions(pools, loop, workdir, file_server) -> None:
    """A downloader closes the session that it made; one that it was given may be shared."""
    import aiohttp

    from pulpcore.plugin.download.futures.pulp import FuturesDownloader

    server = file_server({"/file": b"content", "/empty": b""})

    async def main():
        own = FuturesDownloader(server.url("/file"))
        await own.run()
        assert own.session.closed
        async with aiohttp.ClientSession() as session:
            first = FuturesDownloader(server.url("/file"), session)
            second = FuturesDownloader(server.url("/empty"), first.session)
            assert second.session is first.session
            assert (
                FuturesDownloader(server.url("/"), session).session.shared is first.session.shared
            )
            result = await second.run()
            assert Path(result.path).read_bytes() == b""
            await first.run()
            assert not session.closed
            async with first.session as shared:
                assert shared is first.session
            assert session.closed

    before = server.connections
    loop.run_until_complete(main())
    # The two that shared a session also shared a connection.
    assert server.connections == before + 2
    server.until(lambda: server.open_connections == 0)


class TestPulpErrors:
    @pytest.fixture
    def run(self, pulp: Path, tmp_path: Path) -> Callable[..., None]:
        """Return `run(url, *validations, **settings)`, which fails within `pulp_errors()`."""
        from pulpcore.plugin.download.futures import HttpDownload
        from pulpcore.plugin.download.futures.pulp import pulp_errors

        def fail(url: str, *validations: Any, **settings: Any) -> None:
            download = HttpDownload(url, tmp_path / "file")
            download.retry = None
            download.validations.extend(validations)
            for name, value in settings.items():
                setattr(download, name, value)
            with pulp_errors():
                download()

        return fail

    def test_server(self, run, file_server) -> None:
        """A status, a wrong size or digest, and a time-out have errors of pulpcore's own."""
        from pulpcore.plugin import exceptions
        from pulpcore.plugin.download.futures import DigestValidation, SizeValidation, Timeout

        server = file_server({"/file": b"content", "/stalls": b"content"})
        server.faults = lambda index, request: StallAfter(3) if request.path == "/stalls" else None
        with pytest.raises(exceptions.HttpResponseError, match="404") as caught:
            run(server.url("/missing?token=secret"))
        assert "secret" not in str(caught.value)
        with pytest.raises(exceptions.SizeValidationError):
            run(server.url("/file"), SizeValidation(3))
        with pytest.raises(exceptions.DigestValidationError):
            run(server.url("/file"), DigestValidation("sha256", "0" * 64))
        with pytest.raises(exceptions.TimeoutException):
            run(server.url("/stalls"), timeout=Timeout(read=0.2))
        with pytest.raises(exceptions.TimeoutException):
            run(server.url("/stalls"), timeout=Timeout(total=0.2))

    def test_network(self, run, file_server, tls) -> None:
        """TLS, the network, and whatever else fails have errors of pulpcore's own."""
        from pulpcore.plugin import exceptions

        server = file_server({}, tls=tls.server())
        with pytest.raises(exceptions.SslConnectionError, match="certificate"):
            run(server.url("/file"))
        with pytest.raises(exceptions.RemoteConnectionError, match="refused"):
            run("http://127.0.0.1:1/file")
        with pytest.raises(exceptions.PulpException, match=r"is not valid|url"):
            run("http://[/")

    def test_old_pulpcore(self, run, monkeypatch) -> None:
        """An older pulpcore, that lacks the error, has a PulpException with the same text."""
        from pulpcore.plugin import exceptions

        monkeypatch.delattr(exceptions, "RemoteConnectionError")
        with pytest.raises(exceptions.PulpException, match=r"127.0.0.1:1/file: .*refused"):
            run("http://127.0.0.1:1/file")

    def test_others(self, pulp) -> None:
        """An exception of other code is passed on unchanged."""
        from pulpcore.plugin.download.futures.pulp import pulp_errors

        with pytest.raises(ZeroDivisionError), pulp_errors():
            raise ZeroDivisionError
