"""Tests against a real nginx: restarts, keep-alive, conditions, limits, and as a reverse proxy."""

import errno
import gzip
import itertools
import os
import random
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from email.utils import formatdate
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import pytest
from http_tools import content, failure, into_memory, names, quick, record
from processes import program
from servers.files import CutAfter, File
from servers.nginx import HOST, Nginx, find_nginx
from servers.raw import Cut, Recv, Reset, Send, Stall, Wait, chunked, reply, serve

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    NotAuthorized,
    NotFound,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.validation import DigestMismatch, SizeMismatch

SECONDS = 30
THREADS = 8
OLD = 1_600_000_000  # modification time of the files, long ago

# At this rate the file takes a minute, so everything in these tests happens in the middle of it.
BODY = random.Random(1).randbytes(2 << 20)
SLOW = "limit_rate_after 128k; limit_rate 32k;"
SMALL = random.Random(2).randbytes(10_000)
TEXT = b"".join(b"line %d\n" % number for number in range(20_000))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Create the folder that nginx serves."""
    site = tmp_path / "site"
    site.mkdir()
    put(site / "file", BODY)
    put(site / "small", SMALL)
    return site


@pytest.fixture
def nginx(tmp_path: Path, site: Path, running: Any) -> Callable[..., Nginx]:
    """Return `nginx(server='', http='')`, which starts a private nginx with these directives."""
    if find_nginx() is None:
        missing = "nginx isn't installed: apt-get install nginx-light"
        if os.environ.get("NGINX_REQUIRED"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path / "nginx"
    folder.mkdir()
    return lambda server="", http="": running(Nginx, site, folder, server, http)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of the target, in an empty folder."""
    path = tmp_path / "out" / "file"
    path.parent.mkdir()
    return path


def put(path: Path, body: bytes, changed: int = OLD) -> None:
    """Replace a file atomically, and set its modification time."""
    new = path.with_name("new")
    new.write_bytes(body)
    os.utime(new, (changed, changed))
    new.rename(path)


def once(download: HttpDownload, name: str, work: Callable[[], Any]) -> list[Any]:
    """Call `work` at the first event of this name, and return a list that gets its result."""
    done: list[Any] = []

    def handle(_: Event) -> None:
        if not done:
            done.append(None)
            done[0] = work()

    download.register(name, handle)
    return done


def errors(events: list[Any]) -> list[str]:
    """Return the reason of each Error event."""
    return [event.error.reason for event in events if event.NAME == Event.ERROR]


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not come so far"
        time.sleep(0.01)


def broken_off(server: Nginx, download: HttpDownload, start: Callable[[], None]) -> list[Any]:
    """Run a download during which nginx stops. Its first retry is refused, which restarts nginx."""
    once(download, Event.FETCHED, server.stop)
    events = record(download)
    positions: list[int] = []

    def restart(event: Any) -> None:
        positions.append(download.position)
        if "refused" in event.error.reason and not server.is_running:
            start()

    download.register(Event.ERROR, restart)
    download.retry = quick()
    download()
    assert len(positions) == 2, errors(events)
    return [positions[0], *events]


class TestRestart:
    """nginx restarts during a download."""

    @pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
    def test_resumes(self, nginx: Any, target: Path, validator: str) -> None:
        """A download that is cut by the end of nginx resumes after nginx has restarted."""
        options = "etag off;" if validator == "Last-Modified" else ""
        server = nginx(SLOW + options)
        download = HttpDownload(server.url("/file"), FileWriter(target))
        download.validations.append(DigestValidation("sha256", sha256(BODY).hexdigest()))
        position, *events = broken_off(server, download, lambda: server.start(options))
        assert target.read_bytes() == BODY
        assert 0 < position < len(BODY)
        assert Event.RESTARTED not in names(events)
        # The first request was cut off and isn't in the log.
        (logged,) = server.logged(1)
        assert (logged.status, logged.range) == (206, f"bytes={position}-")
        assert logged.if_range == download.reply.headers[validator]
        assert logged.sent == len(BODY) - position

    @pytest.mark.parametrize("new", [BODY[::-1], BODY[1:], SMALL], ids=["same size", "1", "small"])
    def test_changed_file(self, nginx: Any, site: Path, target: Path, new: bytes) -> None:
        """If the file changes while nginx restarts, the retry downloads it from the beginning."""
        server = nginx(SLOW)

        def start() -> None:
            put(site / "file", new, OLD + 1)
            server.start()

        download = HttpDownload(server.url("/file"), FileWriter(target))
        _, *events = broken_off(server, download, start)
        assert target.read_bytes() == new
        assert names(events).count(Event.RESTARTED) == 1
        (logged,) = server.logged(1)
        assert (logged.status, bool(logged.range)) == (200, True)

    def test_no_ranges(self, nginx: Any, target: Path) -> None:
        """If nginx doesn't support ranges, an interrupted download starts from the beginning."""
        server = nginx(SLOW + "max_ranges 0;")
        download = HttpDownload(server.url("/file"), FileWriter(target))
        _, *events = broken_off(server, download, lambda: server.start("max_ranges 0;"))
        assert target.read_bytes() == BODY
        assert names(events).count(Event.RESTARTED) == 1

    def test_batch_outlives_a_restart(self, nginx: Any) -> None:
        """A batch loses no download when nginx is stopped and started in the middle of it."""
        server = nginx(f"location /file {{ {SLOW} }}")
        retry = quick(None, backoff_factor=0.05, backoff_max=0.5)
        large = [into_memory(server.url(f"/file?{number}"), retry) for number in range(4)]
        small = (into_memory(server.url(f"/small?{number}"), retry) for number in range(200))
        seen = 0
        # The short backlog makes sure that most downloads haven't begun yet.
        with Batch(itertools.chain(large, small), concurrent=THREADS, backlog=16) as batch:
            for plan in batch():
                check(plan.result())
                seen += 1
                if seen == 60:
                    until(lambda: all(download.position for download in large))
                    server.stop()
                    server.start()
        assert seen == 204
        logged = server.logged(4 + 204 - 60 - 16)
        parts = [request for request in logged if request.status == 206]
        assert {request.target for request in parts} == {f"/file?{number}" for number in range(4)}
        assert all(request.sent < len(BODY) for request in parts)

    def test_batch_feels_no_reload(self, nginx: Any) -> None:
        """Reloading nginx during a batch fails no download, even without retries."""
        # The old workers finish these transfers, which takes some seconds.
        config = "location /file { limit_rate_after 512k; limit_rate 512k; }"
        server = nginx(config)
        large = [into_memory(server.url(f"/file?{number}")) for number in range(4)]
        small = (into_memory(server.url(f"/small?{number}")) for number in range(200))
        seen = 0
        with Batch(itertools.chain(large, small), concurrent=THREADS, backlog=16) as batch:
            for plan in batch():
                check(plan.result())
                seen += 1
                if seen in (40, 80, 120):
                    until(lambda: all(download.position for download in large))
                    server.reload(config)
        logged = server.logged(204)
        assert seen == len(logged) == 204
        assert {request.status for request in logged} == {200}
        assert len({request.worker for request in logged}) == 4


class TestNextRun:
    """A run resumes what a failed run before it has left."""

    @pytest.fixture
    def left(self, nginx: Any, target: Path) -> tuple[Nginx, int]:
        """Start nginx again after a failed run.

        Return it and the number of bytes in the partial file.
        """
        server = nginx(SLOW)
        download = HttpDownload(server.url("/file"), FileWriter(target, resume=True))
        download.retry = None
        once(download, Event.FETCHED, server.stop)
        failure(download)
        assert not target.exists()
        (partial,) = target.parent.glob("*.partial")
        server.start()
        return server, partial.stat().st_size

    def again(self, server: Nginx, target: Path) -> HttpDownload:
        """Make the download of the next run."""
        return HttpDownload(server.url("/file"), FileWriter(target, resume=True))

    def test_goes_on(self, left: tuple[Nginx, int], target: Path) -> None:
        """The next run resumes the partial file by nginx's ETag and validates the whole digest."""
        server, size = left
        download = self.again(server, target)
        download.validations.append(DigestValidation("sha256", sha256(BODY).hexdigest()))
        download()
        assert target.read_bytes() == BODY
        assert list(target.parent.iterdir()) == [target]
        (logged,) = server.logged(1)
        assert (logged.status, logged.range) == (206, f"bytes={size}-")
        assert logged.if_range == download.reply.headers["ETag"]
        assert logged.sent == len(BODY) - size

    @pytest.mark.parametrize("new", [BODY[::-1], BODY[1:], SMALL], ids=["same size", "1", "small"])
    def test_changed_file(
        self, left: tuple[Nginx, int], site: Path, target: Path, new: bytes
    ) -> None:
        """If the file changed on nginx between two runs, it is downloaded from the beginning."""
        server, _ = left
        put(site / "file", new, OLD + 1)
        self.again(server, target)()
        assert target.read_bytes() == new
        assert list(target.parent.iterdir()) == [target]
        (logged,) = server.logged(1)
        assert (logged.status, logged.sent) == (200, len(new))

    def test_same_etag(self, left: tuple[Nginx, int], site: Path, target: Path) -> None:
        """If two files share size and second, nginx gives both one ETag. A digest detects the mix.

        The mixed content is deleted, so the run after that downloads the file.
        """
        server, size = left
        new = BODY[::-1]
        put(site / "file", new)
        download = self.again(server, target)
        download.validations.append(DigestValidation("sha256", sha256(new).hexdigest()))
        failure(download, DigestMismatch)
        assert not target.exists()
        download()
        assert target.read_bytes() == new
        assert [request.range for request in server.logged(2)] == [f"bytes={size}-", ""]


class TestKeepAlive:
    """nginx closes idle connections at any time."""

    FILES = 300

    def run(self, server: Nginx) -> tuple[int, int]:
        """Download many files without retries; return connections and most requests of one."""
        downloads = (into_memory(server.url(f"/small?{n}")) for n in range(self.FILES))
        with Batch(downloads, concurrent=THREADS) as batch:
            for plan in batch():
                check(plan.result())
        logged = server.logged(self.FILES)
        assert len(logged) == self.FILES
        assert len({request.target for request in logged}) == self.FILES
        connections = {request.connection for request in logged}
        return len(connections), max(request.number for request in logged)

    def test_as_it_comes(self, nginx: Any) -> None:
        """A batch makes as many connections to nginx as it has threads, and reuses them."""
        connections, most = self.run(nginx())
        assert connections <= THREADS
        assert most >= self.FILES / THREADS

    def test_few_requests(self, nginx: Any) -> None:
        """If nginx allows three requests on a connection, the batch uses each for three."""
        connections, most = self.run(nginx("keepalive_requests 3;"))
        assert most == 3
        # Each thread may end before its last connection is used up.
        assert self.FILES / 3 <= connections <= self.FILES / 3 + THREADS

    def test_no_keep_alive(self, nginx: Any) -> None:
        """If nginx disables keep-alive, the batch opens a connection for each file."""
        assert self.run(nginx("keepalive_timeout 0;")) == (self.FILES, 1)

    def test_short(self, nginx: Any) -> None:
        """Connections that nginx closes just before their reuse fail no download."""
        connections, _ = self.run(nginx("keepalive_timeout 1ms;"))
        assert connections > 1

    def test_idle(self, nginx: Any) -> None:
        """A pooled connection that nginx has closed is replaced without a failure."""
        server = nginx("keepalive_timeout 50ms;")
        context = Context()
        for _ in range(3):
            download = into_memory(server.url("/small"))
            download.context = context
            assert content(download) == SMALL
            until(lambda: not is_connected(server))
        assert [request.number for request in server.logged(3)] == [1, 1, 1]
        context.close()


def is_connected(server: Nginx) -> bool:
    """Return whether nginx's side of a connection is established (Linux)."""
    ours = f"{int.from_bytes(socket.inet_aton(HOST), 'little'):08X}:{server.port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == ours and line.split()[3] == "01" for line in lines)


class TestRanges:
    @pytest.mark.parametrize(
        ("value", "part"),
        [
            ("bytes=5-9", SMALL[5:10]),
            ("bytes=9990-", SMALL[9990:]),
            ("bytes=-7", SMALL[-7:]),
            ("bytes=0-99999", SMALL),
        ],
    )
    def test_own_range(self, nginx: Any, value: str, part: bytes) -> None:
        """A download with its own Range header gets that part of the file from nginx."""
        download = into_memory(nginx().url("/small"), headers={"Range": value})
        assert content(download) == part
        assert download.status == 206

    def test_not_there(self, nginx: Any, target: Path) -> None:
        """A Range beyond the end of the file (416) is an error, and the old target stays."""
        target.write_bytes(b"old")
        download = HttpDownload(
            nginx().url("/small"), FileWriter(target), headers={"Range": "bytes=10000-"}
        )
        assert "416" in failure(download, DownloadFailed).reason
        assert target.read_bytes() == b"old"

    def test_head(self, nginx: Any) -> None:
        """A HEAD download gets size, ETag and range support from nginx, but no content."""
        download = into_memory(nginx().url("/small"), method="HEAD")
        assert content(download) == b""
        assert download.reply.headers["Content-Length"] == str(len(SMALL))
        assert download.reply.headers["Accept-Ranges"] == "bytes"
        assert download.reply.headers["ETag"] == f'"{OLD:x}-{len(SMALL):x}"'


class TestConditions:
    """Conditional requests with headers of the caller."""

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"If-Match": '"another"'}, 412),
            ({"If-Unmodified-Since": formatdate(OLD - 1, usegmt=True)}, 412),
        ],
    )
    def test_not_met(self, nginx: Any, target: Path, headers: dict[str, str], status: int) -> None:
        """A failed precondition (412) is an error that names the status. The old target stays."""
        target.write_bytes(b"old")
        download = HttpDownload(nginx().url("/small"), FileWriter(target), headers=headers)
        error = failure(download, DownloadFailed)
        assert f"the server replied {status}" in error.reason
        assert error.facts is not None
        assert (download.status, error.facts.attempt) == (status, 1)
        assert target.read_bytes() == b"old"

    @pytest.mark.parametrize(
        "options",
        [
            {"known_etag": f'"{OLD:x}-{len(SMALL):x}"'},
            {"known_last_modified": formatdate(OLD, usegmt=True)},
            {"headers": {"If-None-Match": f'"{OLD:x}-{len(SMALL):x}"'}},
            {"headers": {"If-Modified-Since": formatdate(OLD, usegmt=True)}},
        ],
    )
    def test_unchanged(self, nginx: Any, target: Path, options: dict[str, Any]) -> None:
        """An unchanged file gets 304 from nginx without content, and the target stays as it is."""
        target.write_bytes(b"as it is")
        download = HttpDownload(nginx().url("/small"), FileWriter(target), **options)
        download()
        assert (download.unchanged, download.status) == (True, 304)
        assert target.read_bytes() == b"as it is"

    def test_changed(self, nginx: Any, target: Path) -> None:
        """A changed file is downloaded with its validators, which then make it unchanged."""
        server = nginx()
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/small"), FileWriter(target), known_etag='"another"')
        download()
        assert (download.unchanged, target.read_bytes()) == (False, SMALL)
        again = HttpDownload(server.url("/small"), FileWriter(target), known_etag=download.etag)
        again()
        assert (again.unchanged, again.etag) == (True, download.etag)

    def test_second_sync(self, nginx: Any, tmp_path: Path) -> None:
        """A second sync of ten thousand unchanged files gets only 304 responses without content."""
        count = 10_000
        server = nginx()
        etag = f'"{OLD:x}-{len(SMALL):x}"'
        fetched: list[int] = []

        def downloads() -> Any:
            for number in range(count):
                path = tmp_path / f"{number}"
                path.touch()
                url = server.url(f"/small?{number}")
                download = HttpDownload(url, FileWriter(path), known_etag=etag)
                download.register(Event.FETCHED, lambda event: fetched.append(len(event.buffer)))
                yield download

        with Batch(downloads(), concurrent=THREADS) as batch:
            unchanged = sum(plan.result().unchanged for plan in batch())
        assert (unchanged, fetched) == (count, [])
        logged = server.logged(count)
        assert {(request.status, request.sent) for request in logged} == {(304, 0)}
        assert len({request.target for request in logged}) == len(logged) == count
        # nginx serves at most 1000 requests on one connection.
        assert len({request.connection for request in logged}) <= THREADS + count / 1000

    @pytest.mark.parametrize(
        "headers",
        [
            {"If-None-Match": '"another"'},
            {"If-Modified-Since": formatdate(OLD - 1, usegmt=True)},
            {"If-Match": f'"{OLD:x}-{len(SMALL):x}"'},
        ],
        ids=lambda headers: next(iter(headers)),
    )
    def test_met(self, nginx: Any, headers: dict[str, str]) -> None:
        """A request whose precondition holds downloads the file from nginx."""
        assert content(into_memory(nginx().url("/small"), headers=headers)) == SMALL


class TestGzip:
    """The target is the published file, also where nginx compresses."""

    @pytest.fixture
    def texts(self, site: Path) -> bytes:
        """Create a text, a text stored only compressed, and both. Return the compressed one."""
        packed = gzip.compress(TEXT, mtime=0)
        put(site / "text", TEXT)
        put(site / "text.gz", packed)
        put(site / "packed.txt.gz", packed)
        return packed

    @pytest.mark.parametrize(
        "config",
        [
            "gzip_static on;",
            "gzip_static always;",
            "gzip on; gzip_types *; gzip_min_length 1;",
            "gzip_static always; gunzip on;",
        ],
    )
    def test_published(self, nginx: Any, texts: bytes, config: str) -> None:
        """From nginx with gzip, a text arrives as text and a .gz file as a .gz file."""
        server = nginx(config)
        assert content(into_memory(server.url("/text"))) == TEXT
        assert content(into_memory(server.url("/text.gz"))) == texts

    def test_compressed_only(self, nginx: Any, texts: bytes) -> None:
        """A text that nginx stores only compressed, and sends so unasked, is decoded."""
        server = nginx("gzip_static always;")
        download = into_memory(server.url("/packed.txt"))
        assert content(download) == TEXT
        assert download.reply.headers["Content-Encoding"] == "gzip"

    @pytest.mark.parametrize("config", ["gzip_static on;", "gzip on; gzip_types *;"])
    def test_asked_for(self, nginx: Any, texts: bytes, config: str) -> None:
        """A caller that sends its own Accept-Encoding gets the compressed bytes unchanged."""
        download = into_memory(nginx(config).url("/text"), headers={"Accept-Encoding": "gzip"})
        packed = content(download)
        assert download.reply.headers["Content-Encoding"] == "gzip"
        assert len(packed) < len(TEXT) / 2
        assert gzip.decompress(packed) == TEXT

    def test_broken_off(self, nginx: Any, site: Path, target: Path) -> None:
        """An interrupted response with a Content-Encoding is downloaded again and not resumed."""
        put(site / "large.gz", gzip.compress(BODY))
        always = "gzip_static always;"
        server = nginx(SLOW + always)
        download = HttpDownload(server.url("/large"), FileWriter(target))
        _, *events = broken_off(server, download, lambda: server.start(always))
        assert target.read_bytes() == BODY
        assert names(events).count(Event.RESTARTED) == 1
        (logged,) = server.logged(1)
        assert (logged.status, logged.range) == (200, "")


class TestAuthentication:
    NAME = "aladdin"
    PASSWORD = "open sésame:"

    @pytest.fixture
    def server(self, nginx: Any, tmp_path: Path) -> Nginx:
        """Start nginx with one user."""
        users = tmp_path / "users"
        digest = b64encode(sha1(self.PASSWORD.encode()).digest()).decode()
        users.write_text(f"{self.NAME}:{{SHA}}{digest}\n")
        server: Nginx = nginx(f'auth_basic "files"; auth_basic_user_file "{users}";')
        return server

    def test_user(self, server: Nginx) -> None:
        """Credentials in the settings are sent with the first request and accepted by nginx."""
        download = into_memory(server.url("/small"), user=User(self.NAME, self.PASSWORD))
        assert content(download) == SMALL
        assert [request.status for request in server.logged(1)] == [200]

    def test_url(self, server: Nginx) -> None:
        """Credentials in the URL are sent with the first request and accepted by nginx."""
        userinfo = f"{self.NAME}:open%20s%C3%A9same%3A"
        assert content(into_memory(server.url("/small", userinfo))) == SMALL

    def test_netrc(self, nginx: Any, tmp_path: Path, monkeypatch: Any) -> None:
        """Credentials in a netrc file are sent with the first request and accepted by nginx."""
        (tmp_path / "users").write_text(f"{self.NAME}:{{PLAIN}}sesame\n")
        (tmp_path / "netrc").write_text(f"machine {HOST} login {self.NAME} password sesame\n")
        server = nginx(f'auth_basic "files"; auth_basic_user_file "{tmp_path}/users";')
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert content(into_memory(server.url("/small"))) == SMALL

    @pytest.mark.parametrize("user", [None, User(NAME, "wrong"), User("wrong", PASSWORD)])
    def test_refused(self, server: Nginx, target: Path, user: User | None) -> None:
        """Wrong credentials fail without a retry, and the error shows no password."""
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/small"), FileWriter(target), user=user)
        error = failure(download, NotAuthorized)
        assert "401" in error.reason
        assert user is None or user.password not in str(error)
        assert target.read_bytes() == b"old"
        assert len(server.logged(1)) == 1

    def test_repaired(self, server: Nginx) -> None:
        """A handler of the Error event may set the user, after which the download succeeds."""
        download = into_memory(server.url("/small"))

        def login(event: Any) -> None:
            event.download.user = User(self.NAME, self.PASSWORD)
            event.repaired = True

        download.register(Event.ERROR, login)
        assert content(download) == SMALL
        assert [request.status for request in server.logged(2)] == [401, 200]


class TestSpeed:
    def test_too_slow(self, nginx: Any, target: Path) -> None:
        """A download from nginx slower than its least speed fails."""
        server = nginx(SLOW)
        download = HttpDownload(
            server.url("/file"),
            FileWriter(target),
            # The first 256 KiB arrive at once, which is less than this within any window.
            timeout=Timeout(least_speed=1_000_000, window=0.5),
        )
        download.retry = None
        error = failure(download, DownloadFailed)
        assert "slower than 1e+06 bytes a second" in error.reason
        assert list(target.parent.iterdir()) == []

    def test_fast_enough(self, nginx: Any) -> None:
        """A download from nginx above its least speed succeeds, however long it takes."""
        window = 1.0
        server = nginx("limit_rate 800k;")
        download = into_memory(server.url("/file"), timeout=Timeout(least_speed=0.5, window=window))
        # On a stalled machine the transfer may pause for longer; then the test tries again.
        download.retry = quick(None)
        moments: list[float] = []
        for name in (Event.PREPARED, Event.FETCHED, Event.SUCCEEDED):
            download.register(name, lambda _: moments.append(time.monotonic()))
        events = record(download)
        assert content(download) == BODY
        assert moments[-1] - moments[0] > window
        longest = max(after - before for before, after in itertools.pairwise(moments))
        assert not errors(events) or longest >= window


WHOLE = reply(body=SMALL)
CHUNKS = reply(headers={"Transfer-Encoding": "chunked"}) + chunked(SMALL, end=b"")
IMPATIENT = "proxy_read_timeout 100ms;"
HTTP_1_1 = "proxy_http_version 1.1;"
# The script of the server behind nginx, nginx's options, and the expected result.
DEATHS = {
    "before a reply": ([Recv(), Cut()], "", "502"),
    "within the head": ([Recv(), Send(WHOLE[:20]), Cut()], "", "502"),
    "reset": ([Recv(), Reset()], "", "502"),
    "no reply": ([Recv(), Stall()], IMPATIENT, "504"),
    "within the body": ([Recv(), Send(WHOLE[:-1]), Cut()], "", "ended before the content"),
    "no more body": ([Recv(), Send(WHOLE[:-1]), Stall()], IMPATIENT, "ended before the content"),
    "within a chunk": ([Recv(), Send(CHUNKS[:-9]), Cut()], HTTP_1_1, "ended before the content"),
    "before the last chunk": ([Recv(), Send(CHUNKS), Cut()], HTTP_1_1, "ended before the content"),
}


class TestUpstream:
    """nginx is a reverse proxy of a server that fails."""

    @pytest.fixture
    def before(self, nginx: Any, raw_server: Any) -> Callable[..., tuple[Nginx, Any]]:
        """Return `before(scripts, options)`, which starts nginx in front of a scripted server."""

        def start(scripts: Any, options: str = "") -> tuple[Nginx, Any]:
            upstream = raw_server(scripts)
            return nginx(f"location / {{ proxy_pass {upstream.url('')}; {options} }}"), upstream

        return start

    @pytest.mark.parametrize("name", DEATHS)
    def test_dies(self, before: Any, target: Path, name: str) -> None:
        """If the server behind nginx dies, the download fails and never yields a truncated file."""
        script, options, reason = DEATHS[name]
        server, _ = before([script], options)
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = None
        assert reason in failure(download, DownloadFailed).reason
        assert target.read_bytes() == b"old"
        assert list(target.parent.iterdir()) == [target]

    @pytest.mark.parametrize("name", DEATHS)
    def test_comes_back(self, before: Any, target: Path, name: str) -> None:
        """When the server behind nginx is back, a retry downloads the file."""
        script, options, reason = DEATHS[name]
        server, upstream = before([script, serve(WHOLE)], options)
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = quick(None)
        events = record(download)
        download()
        assert target.read_bytes() == SMALL
        assert reason in errors(events)[0]
        assert upstream.connections >= 2

    def test_no_http(self, before: Any, target: Path) -> None:
        """Text that nginx passes on as if it were HTTP/0.9 isn't accepted as a file."""
        server, _ = before([[Recv(), Send(b"some text\r\n\r\n"), Cut()]])
        download = HttpDownload(server.url("/a"), FileWriter(target))
        assert "can't be trusted" in failure(download, DownloadFailed).reason
        assert list(target.parent.iterdir()) == []

    def test_reset_within_an_open_end(self, before: Any, target: Path) -> None:
        """If a body without a length ends in a reset behind nginx, the download fails."""
        came = threading.Event()
        start = reply(headers={"Connection": "close"}, length=False) + SMALL
        server, _ = before([[Recv(), Send(start), Wait(came), Reset()]], "proxy_buffering off;")
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = None
        once(download, Event.FETCHED, came.set)
        assert "ended before the content" in failure(download, DownloadFailed).reason
        assert list(target.parent.iterdir()) == []

    def test_open_end(self, before: Any, target: Path) -> None:
        """Only a size detects a truncated body without a length whose connection ended normally.

        nginx sends such a body as complete chunks, so nothing in the response shows that it is
        short.
        """
        start = reply(headers={"Connection": "close"}, length=False) + SMALL[:-1]
        server, _ = before([[Recv(), Send(start)]])
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.validations.append(SizeValidation(len(SMALL)))
        failure(download, SizeMismatch)
        assert list(target.parent.iterdir()) == []

    def test_nobody_there(self, nginx: Any, target: Path) -> None:
        """If no server runs behind nginx, the download uses up its retries and fails with 502."""
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            server = nginx(f"location / {{ proxy_pass http://{HOST}:{sock.getsockname()[1]}; }}")
            download = HttpDownload(server.url("/a"), FileWriter(target))
            download.retry = quick(2)
            error = failure(download, DownloadFailed)
        assert "502" in error.reason
        assert [request.status for request in server.logged(3)] == [502] * 3
        assert list(target.parent.iterdir()) == []

    def test_resumes_through_it(self, nginx: Any, file_server: Any, target: Path) -> None:
        """A transfer that the server behind nginx cut off resumes with a range through nginx."""
        upstream = file_server({"/a": File(BODY, etag='"v1"')}, faults={0: CutAfter(1_000_000)})
        server = nginx(f"location / {{ proxy_pass {upstream.url('')}; }}")
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = quick()
        events = record(download)
        download()
        assert target.read_bytes() == BODY
        assert Event.RESTARTED not in names(events)
        asked = upstream.requests[1]
        assert (asked.header("Range"), asked.header("If-Range")) == ("bytes=1000000-", '"v1"')


class TestBusy:
    """nginx limits the rate of requests."""

    @pytest.mark.parametrize("status", [429, 503])
    def test_limit_req(self, nginx: Any, status: int) -> None:
        """A download above nginx's rate limit waits for the Retry-After and then succeeds."""
        server = nginx(
            f"""
            limit_req_status {status};
            error_page {status} @busy;
            location / {{ limit_req zone=all; }}
            location @busy {{ add_header Retry-After 1 always; return {status}; }}
            """,
            "limit_req_zone $server_port zone=all:1m rate=1r/s;",
        )
        asked: list[tuple[float, int | None]] = []
        # A slow machine may stay below the limit by itself for a while.
        for _ in range(SECONDS):
            download = into_memory(server.url("/small"), quick(None))
            download.register(
                Event.REPLIED, lambda event: asked.append((time.monotonic(), event.download.status))
            )
            events = record(download)
            assert content(download) == SMALL
            if errors(events):
                break
        (refused, first), (accepted, second) = asked[-2:]
        assert (first, second) == (status, 200)
        assert f"{status}" in errors(events)[0]
        # The policy adds no wait of its own.
        assert accepted - refused > 0.9

    def test_not_ready_for_long(self, nginx: Any) -> None:
        """If the Retry-After is too long, the download fails at once and says when to retry."""
        server = nginx("location / { add_header Retry-After 7200 always; return 503; }")
        error = failure(into_memory(server.url("/small"), quick()), DownloadFailed)
        assert "it says that it is ready in 7200 s" in error.reason
        assert error.retry_after == 7200
        assert len(server.logged(1)) == 1


class TestPrivateNginx:
    """The tests' own nginx."""

    def test_bad_configuration(self, nginx: Any) -> None:
        """If the private nginx of the tests can't start, the error contains its log."""
        with pytest.raises(RuntimeError, match=r'unknown directive "bogus"'):
            nginx("bogus;")

    def test_nothing_left(self, nginx: Any) -> None:
        """Closing the private nginx of the tests ends its master and all its workers."""
        server = nginx()
        into_memory(server.url("/small"))()
        (logged,) = server.logged(1)
        os.kill(int(logged.worker), 0)
        server.close()
        with pytest.raises(ProcessLookupError):
            os.kill(int(logged.worker), 0)
        error = failure(into_memory(server.url("/small")), DownloadFailed)
        assert "refused" in error.reason

    def test_killed(self, nginx: Any, site: Path, tmp_path: Path) -> None:
        """The private nginx ends with the test process, even if that is killed."""
        nginx()  # or skip
        code = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from servers.nginx import Nginx
print(Nginx(*map(Path, sys.argv[2:])).port, flush=True)
signal.pause()
"""
        folder = tmp_path / "another"
        folder.mkdir()
        with program(code, Path(__file__).parents[1] / "support", site, folder) as starter:
            address = HOST, int(starter.stdout.readline())
            socket.create_connection(address).close()
            starter.kill()
            starter.wait(SECONDS)
        until(lambda: is_refused(address))


def is_refused(address: tuple[str, int]) -> bool:
    """Return whether nothing listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(address) == errno.ECONNREFUSED


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "kind", "status"),
        [
            ("/missing", NotFound, 404),
            ("/folder/", NotAuthorized, 403),
            ("/folder", NotAuthorized, 403),
            ("/gone", NotFound, 410),
            ("/nothing", DownloadFailed, 204),
            ("/closed", DownloadFailed, 444),
        ],
    )
    def test_no_file(
        self, nginx: Any, site: Path, target: Path, path: str, kind: Any, status: int
    ) -> None:
        """An error status of nginx raises its error class, and the old target stays."""
        (site / "folder").mkdir()
        server = nginx(
            """
            location /gone { return 410; }
            location /nothing { return 204; }
            location /closed { return 444; }
            """
        )
        target.write_bytes(b"old")
        download = HttpDownload(server.url(path), FileWriter(target))
        download.retry = None
        error = failure(download, kind)
        if status == 444:  # nginx's own status for a connection that it closes without a response
            assert "without a reply" in error.reason
        else:
            assert f"{status}" in error.reason
        assert target.read_bytes() == b"old"


def check(download: Any) -> None:
    """Assert that the content is right."""
    assert download.writer.getvalue() == (BODY if "/file" in download.url else SMALL)
