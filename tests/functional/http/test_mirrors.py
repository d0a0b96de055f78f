"""Tests of downloads that ask mirrors."""

import errno
import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from http_tools import content, failure, into_memory, names, quick, record, trust
from servers.files import CutAfter, File, FileServer, Redirect, Status
from servers.message import basic

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    DownloadFailed,
    HttpDownload,
    Limits,
    MismatchError,
    NotAuthorized,
    NotFound,
    SizeValidation,
    Timeout,
    User,
    Validation,
    Writer,
)
from pulpcore.plugin.download.futures.engine.attempt import Attempt
from pulpcore.plugin.download.futures.event import Error

BODY = b"content " * 1000


def digest() -> DigestValidation:
    """The validation of the body's digest."""
    return DigestValidation("sha256", hashlib.sha256(BODY).hexdigest())


class Full(Writer):
    """A writer on a disk that is full."""

    def append(self, buffer: bytes) -> int:
        """Fail."""
        raise OSError(errno.ENOSPC, "No space left on device")


class OneWay(Validation):
    """A validation that can't be reset."""

    def update(self, buffer: bytes) -> None:
        """See no way back."""

    def apply(self) -> None:
        """Pass."""


class OfSource(HttpDownload):
    """A download each attempt of which asks the URL in `source`."""

    chosen = ""

    def _send(self) -> None:
        Attempt.of(self).chosen = self.chosen
        super()._send()


class TestCredentials:
    @pytest.fixture
    def pair(self, file_server: Any) -> tuple[FileServer, FileServer]:
        """The server of a URL, and one of a mirror, which redirects `/to` to the first."""
        home = file_server({"/a": BODY})
        return home, file_server({"/a": BODY, "/to": Redirect(home.url("/a"))})

    def test_headers(self, pair: tuple[FileServer, FileServer]) -> None:
        """Of the caller's headers, a mirror gets User-Agent, Accept and Range only."""
        home, mirror = pair
        own = {"Accept": "x/y", "Accept-Language": "de", "User-Agent": "me", "Range": "bytes=0-"}
        secrets = {"Authorization": "Bearer s3cret", "Cookie": "a=b", "X-Token": "s3cret"}
        download = OfSource(home.url("/a"), BufferWriter(), headers=own | secrets)
        download.chosen = mirror.url("/a")
        download.user = User("me", "s3cret")
        assert content(download) == BODY
        [request] = mirror.requests
        assert own.items() <= dict(request.headers).items()
        assert not secrets.keys() & dict(request.headers).keys()
        assert home.count == 0

    @pytest.mark.parametrize("own", [{"user": User("me", "s3cret")}, {}])
    def test_userinfo(self, pair: tuple[FileServer, FileServer], own: Any) -> None:
        """Userinfo in a mirror's URL goes to that mirror only, that in the URL not to mirrors."""
        home, mirror = pair
        download = OfSource(home.url("/a", userinfo="me:s3cret"), BufferWriter(), **own)
        download.chosen = mirror.url("/a", userinfo="you:theirs")
        assert content(download) == BODY
        download.chosen = mirror.url("/to")
        assert content(download) == BODY
        sent = [request.header("Authorization") for request in mirror.requests]
        assert sent == [basic("you", "theirs"), None]
        assert home.requests[0].header("Authorization") == basic("me", "s3cret")

    def test_netrc(
        self, pair: tuple[FileServer, FileServer], monkeypatch: Any, tmp_path: Any
    ) -> None:
        """A netrc file has credentials for the host of the URL, and not for that of a mirror."""
        home, mirror = pair
        path = tmp_path / "netrc"
        path.write_text("machine 127.0.0.1 login me password s3cret\n")
        monkeypatch.setenv("NETRC", str(path))
        download = OfSource(home.url("/a"), BufferWriter())
        for download.chosen in (mirror.url("/a"), home.url("/a"), mirror.url("/to")):
            assert content(download) == BODY
        assert [request.header("Authorization") for request in mirror.requests] == [None, None]
        sent = [request.header("Authorization") for request in home.requests]
        assert sent == [basic("me", "s3cret")] * 2

    def test_client_certificate(self, file_server: Any, tls: Any) -> None:
        """A mirror doesn't get the client certificate, even if it demands one."""
        demands = tls.server(client_ca=tls.ca)
        home, mirror = file_server({"/a": BODY}, tls=demands), file_server({}, tls=demands)
        settings = trust(tls.ca, tls.client)
        assert content(into_memory(home.url("/a"), ssl=settings)) == BODY
        home.faults = lambda *_: Status(404)
        mirrors = [mirror.url("/a")]
        error = failure(into_memory(home.url("/a"), ssl=settings, mirrors=mirrors), DownloadFailed)
        assert "client certificate" in error.reason
        assert mirror.count == 0


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the origin of a server that answers no connection: its listen queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def broken(server: FileServer, status: int, **headers: str) -> FileServer:
    """Have a server answer each request with a status."""
    server.faults = lambda _number, _request: Status(
        status, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    return server


class TestFailover:
    def test_order(self, file_server: Any) -> None:
        """If a source fails after one request, the next one is asked without a retry."""
        servers = [file_server({"/a": BODY}) for _ in range(4)]
        for server, status in zip(servers, (503, 404, 403), strict=False):
            broken(server, status)
        home, *mirrors = [server.url("/a") for server in servers]
        download = into_memory(home, mirrors=mirrors)
        events = record(download)
        assert content(download) == BODY
        assert [server.count for server in servers] == [1, 1, 1, 1]
        assert (download.url, download.source) == (home, mirrors[2])
        assert [each.retrying for each in events if isinstance(each, Error)] == [True] * 3

    def test_source(self, file_server: Any) -> None:
        """The source is known only after a run has succeeded."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        assert download.source is None
        assert content(download) == BODY
        assert download.source == download.url
        server.files = {}
        failure(download, NotFound)
        assert download.source is None

    @pytest.mark.parametrize(
        ("statuses", "kind"),
        [
            ((404, 410), NotFound),
            ((401, 403), NotAuthorized),
            ((404, 403), DownloadFailed),
            ((404, 503), DownloadFailed),
        ],
    )
    def test_all_fail(self, file_server: Any, statuses: Any, kind: Any) -> None:
        """The error names every source and its reason, without the secrets in the URLs."""
        first, second = (broken(file_server({}), status) for status in statuses)
        mirror = second.url("/a?token=s3cret", userinfo="me:s3cret")
        error = failure(into_memory(first.url("/a"), mirrors=[mirror]), kind)
        assert error.reason.startswith("all 2 sources that were asked failed: ")
        for server, status in zip((first, second), statuses, strict=True):
            assert server.host in str(error)
            assert str(status) in error.reason
        assert "s3cret" not in str(error)

    @pytest.mark.parametrize("others", [b"x", BODY + b"y"])
    def test_all_mismatch(self, file_server: Any, others: bytes) -> None:
        """If no source has the right bytes, the error is a mismatch."""
        first, second = file_server({"/a": b"x"}), file_server({"/a": others})
        download = into_memory(first.url("/a"), mirrors=[second.url("/a")])
        download.validations = [SizeValidation(len(BODY)), digest()]
        assert isinstance(failure(download), MismatchError)
        assert (first.count, second.count) == (1, 1)

    def test_mismatch(self, file_server: Any) -> None:
        """After wrong bytes the next source starts at byte 0. After a cut it continues."""
        wrong = file_server({"/a": File(b"x" * len(BODY), etag='"e"')})
        cut = file_server({"/a": File(BODY, etag='"e"')}, faults=lambda *_: CutAfter(99))
        right = file_server({"/a": File(BODY, etag='"e"')})
        urls = [server.url("/a") for server in (wrong, cut, right)]
        download = into_memory(urls[0], mirrors=urls[1:])
        download.validations = [digest()]
        events = record(download)
        assert content(download) == BODY
        assert [[r.header("Range") for r in s.requests] for s in (cut, right)] == [
            [None],
            ["bytes=99-"],
        ]
        assert names(events).count("RESTARTED") == 1

    def test_rounds(self, file_server: Any) -> None:
        """After a back-off only the sources whose failure was transient are asked."""
        servers = [
            broken(file_server({"/a": BODY}), 404),
            broken(file_server({"/a": BODY}), 503),
            broken(file_server({"/a": BODY}), 503, Retry_After="999"),
        ]
        servers[1].faults = {0: Status(503), 1: Status(503)}
        home, *mirrors = [server.url("/a") for server in servers]
        download = into_memory(home, quick(3), mirrors=mirrors)
        assert content(download) == BODY
        assert [server.count for server in servers] == [1, 3, 1]

    def test_budget(self, file_server: Any) -> None:
        """`total` limits the rounds through all sources, and not the requests."""
        servers = [broken(file_server({}), 503) for _ in range(2)]
        home, mirror = [server.url("/a") for server in servers]
        failure(into_memory(home, quick(2), mirrors=[mirror]), DownloadFailed)
        assert [server.count for server in servers] == [3, 3]

    def test_repaired(self, file_server: Any) -> None:
        """If a handler has repaired something, the same source is asked again."""
        home, mirror = file_server({"/a": BODY}, faults={0: Status(401)}), file_server({})
        download = into_memory(home.url("/a"), mirrors=[mirror.url("/a")])
        download.register("ERROR", lambda event: setattr(event, "repaired", True))
        assert content(download) == BODY
        assert (home.count, mirror.count) == (2, 0)

    def test_other_url(self, file_server: Any) -> None:
        """If a handler has replaced the URL, the new one is asked."""
        home, other = file_server({}), file_server({"/a": BODY})

        def repair(event: Any) -> None:
            event.download.url, event.repaired = other.url("/a"), True

        download = into_memory(home.url("/a"), mirrors=[home.url("/b")])
        download.register("ERROR", repair)
        assert content(download) == BODY
        assert download.source == other.url("/a")

    def test_own_fault(self, file_server: Any, tmp_path: Any) -> None:
        """If the target can't be written, no other source is asked."""
        home, mirror = file_server({"/a": BODY}), file_server({"/a": BODY})
        download = into_memory(home.url("/a"), mirrors=[mirror.url("/a")])
        download.writer = Full()
        assert "can't write" in failure(download).reason
        assert mirror.count == 0

    def test_no_reset(self, file_server: Any) -> None:
        """If the writer can't restart, the content isn't fetched from another source."""
        home = file_server({"/a": BODY}, faults=lambda *_: CutAfter(99))
        mirror = file_server({"/a": BODY})
        download = into_memory(home.url("/a"), mirrors=[mirror.url("/a")])
        download.validations = [OneWay()]
        failure(download, DownloadFailed)
        assert mirror.count == 0

    def test_insecure(self, file_server: Any, tls: Any) -> None:
        """An http mirror of an https URL is asked only if a digest is validated."""
        home = broken(file_server({}, tls=tls.server()), 404)
        mirror = file_server({"/a": BODY})
        download = into_memory(home.url("/a"), ssl=trust(tls.ca), mirrors=[mirror.url("/a")])
        failure(download, NotFound)
        assert mirror.count == 0
        download.validations = [digest()]
        assert content(download) == BODY

    def test_conditional(self, file_server: Any) -> None:
        """The known ETag isn't sent to a mirror, and a mirror's validators aren't reported."""
        home = file_server({"/a": File(BODY, etag='"e"')})
        mirror = file_server({"/a": File(BODY, etag='"e"')})
        download = into_memory(home.url("/a"), known_etag='"e"', mirrors=[mirror.url("/a")])
        download()
        assert (download.unchanged, download.etag, mirror.count) == (True, '"e"', 0)
        broken(home, 503)
        assert content(download) == BODY
        assert (download.etag, download.last_modified) == (None, None)
        assert mirror.requests[0].header("If-None-Match") is None

    @pytest.mark.parametrize("mirrors", ["http://h/", 5, b"x"])
    def test_wrong_type(self, mirrors: Any) -> None:
        """If `mirrors` isn't an iterable of URLs, TypeError names the argument."""
        with pytest.raises(TypeError, match=r"^mirrors: "):
            HttpDownload("http://h/", None, mirrors=mirrors)

    def test_wrong_mirror(self) -> None:
        """A mirror that isn't an http URL is refused before anything is sent."""
        error = failure(into_memory("http://h/", mirrors=["http://h/", "ftp://h/"]))
        assert "mirrors: number 2: the scheme" in error.reason

    def test_batch(self, file_server: Any) -> None:
        """A mirror that fails is asked for the first few files of a batch only."""
        files = {f"/{n}": BODY for n in range(40)}
        home, mirror = broken(file_server(files), 500), file_server(files)
        downloads = [into_memory(home.url(n), mirrors=[mirror.url(n)]) for n in files]
        with Batch(downloads, concurrent=2) as batch:
            for plan in batch():
                assert plan.result().source in plan.download.mirrors
        assert 3 <= home.count <= 8

    def test_dead(self, file_server: Any, silent: str) -> None:
        """Each thread waits for a dead server about once, and not for each file."""
        files = {f"/{n}": BODY for n in range(200)}
        mirror = file_server(files)
        downloads = [into_memory(silent + n, mirrors=[mirror.url(n)]) for n in files]
        failed: list[Any] = []
        for download in downloads:
            download.timeout = Timeout(connect=0.2)
            download.register("ERROR", failed.append)
        with Batch(downloads, concurrent=4) as batch:
            assert all(plan.result().source in plan.download.mirrors for plan in batch())
        assert 4 <= len(failed) <= 8

    def test_connections(self, file_server: Any) -> None:
        """The limit of connections applies to each mirror separately."""
        files = {f"/{n}": BODY for n in range(30)}
        home, mirror = broken(file_server(files), 404), file_server(files)
        downloads = [into_memory(home.url(n), mirrors=[mirror.url(n)]) for n in files]
        with Batch(downloads, concurrent=6, limits=Limits(per_host=2)) as batch:
            assert all(plan.result().source in plan.download.mirrors for plan in batch())
        assert max(home.most_connections, mirror.most_connections) <= 2
