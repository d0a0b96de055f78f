"""What people download from: a real nginx, as it is configured, restarted and put before others."""

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
OLD = 1_600_000_000  # when the files were changed, long ago

# At this rate the file takes a minute: whatever happens to it happens in the middle.
BODY = random.Random(1).randbytes(2 << 20)
SLOW = "limit_rate_after 128k; limit_rate 32k;"
SMALL = random.Random(2).randbytes(10_000)
TEXT = b"".join(b"line %d\n" % number for number in range(20_000))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder that nginx serves."""
    site = tmp_path / "site"
    site.mkdir()
    put(site / "file", BODY)
    put(site / "small", SMALL)
    return site


@pytest.fixture
def nginx(tmp_path: Path, site: Path, running: Any) -> Callable[..., Nginx]:
    """`nginx(server='', http='')` starts a private nginx with these directives."""
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
    """Where the file goes; nothing else is in its folder."""
    path = tmp_path / "out" / "file"
    path.parent.mkdir()
    return path


def put(path: Path, body: bytes, changed: int = OLD) -> None:
    """Put a file in its place at once, with the time of its last change."""
    new = path.with_name("new")
    new.write_bytes(body)
    os.utime(new, (changed, changed))
    new.rename(path)


def once(download: HttpDownload, name: str, work: Callable[[], Any]) -> list[Any]:
    """Have work done at the first event of a name; return the list of what came of it."""
    done: list[Any] = []

    def handle(_: Event) -> None:
        if not done:
            done.append(None)
            done[0] = work()

    download.register(name, handle)
    return done


def errors(events: list[Any]) -> list[str]:
    """The reason of each Error."""
    return [event.error.reason for event in events if event.NAME == Event.ERROR]


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not come so far"
        time.sleep(0.01)


def broken_off(server: Nginx, download: HttpDownload, start: Callable[[], None]) -> list[Any]:
    """Run a download that nginx is stopped under, and that finds nobody when it tries again.

    Args:
        server: It is stopped when the first bytes have come.
        download: Tried again without a wait.
        start: Called when a connection was refused, to start the server again.

    Returns:
        The events, and above them how far the download was when the connection broke.
    """
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
    """It is restarted while something is downloaded."""

    @pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
    def test_resumes(self, nginx: Any, target: Path, validator: str) -> None:
        """A download that nginx ends under goes on where it was, when nginx is there again."""
        options = "etag off;" if validator == "Last-Modified" else ""
        server = nginx(SLOW + options)
        download = HttpDownload(server.url("/file"), FileWriter(target))
        download.validations.append(DigestValidation("sha256", sha256(BODY).hexdigest()))
        position, *events = broken_off(server, download, lambda: server.start(options))
        assert target.read_bytes() == BODY
        assert 0 < position < len(BODY)
        assert Event.RESTARTED not in names(events)
        # The first was cut off, and is not in the log.
        (logged,) = server.logged(1)
        assert (logged.status, logged.range) == (206, f"bytes={position}-")
        assert logged.if_range == download.reply.headers[validator]
        assert logged.sent == len(BODY) - position

    @pytest.mark.parametrize("new", [BODY[::-1], BODY[1:], SMALL], ids=["same size", "1", "small"])
    def test_changed_file(self, nginx: Any, site: Path, target: Path, new: bytes) -> None:
        """If the file has changed meanwhile, the new one is fetched from its beginning."""
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
        """A server that answers no ranges sends the file again, from its beginning."""
        server = nginx(SLOW + "max_ranges 0;")
        download = HttpDownload(server.url("/file"), FileWriter(target))
        _, *events = broken_off(server, download, lambda: server.start("max_ranges 0;"))
        assert target.read_bytes() == BODY
        assert names(events).count(Event.RESTARTED) == 1

    def test_batch_outlives_a_restart(self, nginx: Any) -> None:
        """Nginx is stopped and started in the middle of a batch: it costs no download."""
        server = nginx(f"location /file {{ {SLOW} }}")
        retry = quick(None, backoff_factor=0.05, backoff_max=0.5)
        large = [into_memory(server.url(f"/file?{number}"), retry) for number in range(4)]
        small = (into_memory(server.url(f"/small?{number}"), retry) for number in range(200))
        seen = 0
        # The backlog is short, so that most are not begun yet.
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
        """Reloading in the middle of a batch is no failure, even where nothing is tried again."""
        # The old workers send these to the end, which takes some seconds.
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
    """What a run leaves that failed, and what the next one makes of it."""

    @pytest.fixture
    def left(self, nginx: Any, target: Path) -> tuple[Nginx, int]:
        """nginx, started again, and how many bytes a run left that failed."""
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
        """The download of the next run."""
        return HttpDownload(server.url("/file"), FileWriter(target, resume=True))

    def test_goes_on(self, left: tuple[Nginx, int], target: Path) -> None:
        """The next run asks for the rest, by nginx's ETag, and checks the digest of the whole."""
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
        """If the file has changed between the runs, it is fetched from its beginning."""
        server, _ = left
        put(site / "file", new, OLD + 1)
        self.again(server, target)()
        assert target.read_bytes() == new
        assert list(target.parent.iterdir()) == [target]
        (logged,) = server.logged(1)
        assert (logged.status, logged.sent) == (200, len(new))

    def test_same_etag(self, left: tuple[Nginx, int], site: Path, target: Path) -> None:
        """Nginx's ETag is that of another file of that size and second: a digest tells them apart.

        What doesn't fit together is dropped, so the run after that brings the file.
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
    """nginx closes connections that are kept, whenever it likes."""

    FILES = 300

    def run(self, server: Nginx) -> tuple[int, int]:
        """Download many files, none of them twice; return connections and most requests of one."""
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
        """So many threads make so many connections, and keep them."""
        connections, most = self.run(nginx())
        assert connections <= THREADS
        assert most >= self.FILES / THREADS

    def test_few_requests(self, nginx: Any) -> None:
        """A connection that may serve three requests serves three, and then there is another."""
        connections, most = self.run(nginx("keepalive_requests 3;"))
        assert most == 3
        # Each thread may end within a connection.
        assert self.FILES / 3 <= connections <= self.FILES / 3 + THREADS

    def test_no_keep_alive(self, nginx: Any) -> None:
        """Where connections aren't kept each file has one."""
        assert self.run(nginx("keepalive_timeout 0;")) == (self.FILES, 1)

    def test_short(self, nginx: Any) -> None:
        """Connections that end just when they are used again cost no download, without retries."""
        connections, _ = self.run(nginx("keepalive_timeout 1ms;"))
        assert connections > 1

    def test_idle(self, nginx: Any) -> None:
        """A connection that nginx has closed meanwhile is replaced, which is no failure."""
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
    """Whether a connection to it is established from its own side (Linux)."""
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
        """The caller's own Range brings that part."""
        download = into_memory(nginx().url("/small"), headers={"Range": value})
        assert content(download) == part
        assert download.status == 206

    def test_not_there(self, nginx: Any, target: Path) -> None:
        """A part behind the end is an error, and the old file stays."""
        target.write_bytes(b"old")
        download = HttpDownload(
            nginx().url("/small"), FileWriter(target), headers={"Range": "bytes=10000-"}
        )
        assert "416" in failure(download, DownloadFailed).reason
        assert target.read_bytes() == b"old"

    def test_head(self, nginx: Any) -> None:
        """HEAD tells of the file what a later request needs, and brings none of it."""
        download = into_memory(nginx().url("/small"), method="HEAD")
        assert content(download) == b""
        assert download.reply.headers["Content-Length"] == str(len(SMALL))
        assert download.reply.headers["Accept-Ranges"] == "bytes"
        assert download.reply.headers["ETag"] == f'"{OLD:x}-{len(SMALL):x}"'


class TestConditions:
    """What the caller's own headers make of a reply."""

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"If-Match": '"another"'}, 412),
            ({"If-Unmodified-Since": formatdate(OLD - 1, usegmt=True)}, 412),
        ],
    )
    def test_not_met(self, nginx: Any, target: Path, headers: dict[str, str], status: int) -> None:
        """A reply without the file is an error that says which, and the old file stays."""
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
        """What is unchanged isn't sent, and the file stays as it is."""
        target.write_bytes(b"as it is")
        download = HttpDownload(nginx().url("/small"), FileWriter(target), **options)
        download()
        assert (download.unchanged, download.status) == (True, 304)
        assert target.read_bytes() == b"as it is"

    def test_changed(self, nginx: Any, target: Path) -> None:
        """What was changed comes, with what tells its version; known, it isn't sent again."""
        server = nginx()
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/small"), FileWriter(target), known_etag='"another"')
        download()
        assert (download.unchanged, target.read_bytes()) == (False, SMALL)
        again = HttpDownload(server.url("/small"), FileWriter(target), known_etag=download.etag)
        again()
        assert (again.unchanged, again.etag) == (True, download.etag)

    def test_second_sync(self, nginx: Any, tmp_path: Path) -> None:
        """A second sync of ten thousand files costs as many small answers, and no bytes."""
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
        # As many as nginx is ready to serve over one, 1000, make a connection.
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
        """A condition that is met brings the file."""
        assert content(into_memory(nginx().url("/small"), headers=headers)) == SMALL


class TestGzip:
    """What is written is what was published, however nginx likes to send it."""

    @pytest.fixture
    def texts(self, site: Path) -> bytes:
        """Put a text, a text that is there compressed only, and both; return the compressed one."""
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
        """A text comes as the text that it is, and a .gz as the .gz."""
        server = nginx(config)
        assert content(into_memory(server.url("/text"))) == TEXT
        assert content(into_memory(server.url("/text.gz"))) == texts

    def test_compressed_only(self, nginx: Any, texts: bytes) -> None:
        """So does a text of which only the compressed file lies there, sent unasked."""
        server = nginx("gzip_static always;")
        download = into_memory(server.url("/packed.txt"))
        assert content(download) == TEXT
        assert download.reply.headers["Content-Encoding"] == "gzip"

    @pytest.mark.parametrize("config", ["gzip_static on;", "gzip on; gzip_types *;"])
    def test_asked_for(self, nginx: Any, texts: bytes, config: str) -> None:
        """Who asks for gzip by a header of their own gets it as it is sent."""
        download = into_memory(nginx(config).url("/text"), headers={"Accept-Encoding": "gzip"})
        packed = content(download)
        assert download.reply.headers["Content-Encoding"] == "gzip"
        assert len(packed) < len(TEXT) / 2
        assert gzip.decompress(packed) == TEXT

    def test_broken_off(self, nginx: Any, site: Path, target: Path) -> None:
        """What comes encoded is never gone on with in the middle, but fetched again."""
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
        """Nginx with one user."""
        users = tmp_path / "users"
        digest = b64encode(sha1(self.PASSWORD.encode()).digest()).decode()
        users.write_text(f"{self.NAME}:{{SHA}}{digest}\n")
        server: Nginx = nginx(f'auth_basic "files"; auth_basic_user_file "{users}";')
        return server

    def test_user(self, server: Nginx) -> None:
        """A user's name and password let in, and are sent at once."""
        download = into_memory(server.url("/small"), user=User(self.NAME, self.PASSWORD))
        assert content(download) == SMALL
        assert [request.status for request in server.logged(1)] == [200]

    def test_url(self, server: Nginx) -> None:
        """So do those in a URL."""
        userinfo = f"{self.NAME}:open%20s%C3%A9same%3A"
        assert content(into_memory(server.url("/small", userinfo))) == SMALL

    def test_netrc(self, nginx: Any, tmp_path: Path, monkeypatch: Any) -> None:
        """So do those in a netrc file."""
        (tmp_path / "users").write_text(f"{self.NAME}:{{PLAIN}}sesame\n")
        (tmp_path / "netrc").write_text(f"machine {HOST} login {self.NAME} password sesame\n")
        server = nginx(f'auth_basic "files"; auth_basic_user_file "{tmp_path}/users";')
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert content(into_memory(server.url("/small"))) == SMALL

    @pytest.mark.parametrize("user", [None, User(NAME, "wrong"), User("wrong", PASSWORD)])
    def test_refused(self, server: Nginx, target: Path, user: User | None) -> None:
        """Others are refused, by an error that shows no password, and it isn't tried again."""
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/small"), FileWriter(target), user=user)
        error = failure(download, NotAuthorized)
        assert "401" in error.reason
        assert user is None or user.password not in str(error)
        assert target.read_bytes() == b"old"
        assert len(server.logged(1)) == 1

    def test_repaired(self, server: Nginx) -> None:
        """A handler of the error may name the user, and the download goes on."""
        download = into_memory(server.url("/small"))

        def login(event: Any) -> None:
            event.download.user = User(self.NAME, self.PASSWORD)
            event.repaired = True

        download.register(Event.ERROR, login)
        assert content(download) == SMALL
        assert [request.status for request in server.logged(2)] == [401, 200]


class TestSpeed:
    def test_too_slow(self, nginx: Any, target: Path) -> None:
        """A download that is slower than it may be is given up."""
        server = nginx(SLOW)
        download = HttpDownload(
            server.url("/file"),
            FileWriter(target),
            # The first 256 KiB come at once: less than this in any window.
            timeout=Timeout(least_speed=1_000_000, window=0.5),
        )
        download.retry = None
        error = failure(download, DownloadFailed)
        assert "slower than 1e+06 bytes a second" in error.reason
        assert list(target.parent.iterdir()) == []

    def test_fast_enough(self, nginx: Any) -> None:
        """A download that is faster comes whole, however long it takes."""
        window = 1.0
        server = nginx("limit_rate 800k;")
        download = into_memory(server.url("/file"), timeout=Timeout(least_speed=0.5, window=window))
        # On a machine that stands still nothing may come for longer; it is tried again then.
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
# What the server behind nginx does, nginx's options, and what it comes to.
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
    """nginx stands before a server that fails."""

    @pytest.fixture
    def before(self, nginx: Any, raw_server: Any) -> Callable[..., tuple[Nginx, Any]]:
        """`before(scripts, options)` starts nginx before a server that plays the scripts."""

        def start(scripts: Any, options: str = "") -> tuple[Nginx, Any]:
            upstream = raw_server(scripts)
            return nginx(f"location / {{ proxy_pass {upstream.url('')}; {options} }}"), upstream

        return start

    @pytest.mark.parametrize("name", DEATHS)
    def test_dies(self, before: Any, target: Path, name: str) -> None:
        """Where the server behind dies it is an error, never a short file."""
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
        """It is tried again, and brings the file when the server behind is there again."""
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
        """What nginx takes for HTTP/0.9 and passes on as it is, is not taken for a file."""
        server, _ = before([[Recv(), Send(b"some text\r\n\r\n"), Cut()]])
        download = HttpDownload(server.url("/a"), FileWriter(target))
        assert "can't be trusted" in failure(download, DownloadFailed).reason
        assert list(target.parent.iterdir()) == []

    def test_reset_within_an_open_end(self, before: Any, target: Path) -> None:
        """A body without a length, of which a reset is the end, is not taken for whole."""
        came = threading.Event()
        start = reply(headers={"Connection": "close"}, length=False) + SMALL
        server, _ = before([[Recv(), Send(start), Wait(came), Reset()]], "proxy_buffering off;")
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = None
        once(download, Event.FETCHED, came.set)
        assert "ended before the content" in failure(download, DownloadFailed).reason
        assert list(target.parent.iterdir()) == []

    def test_open_end(self, before: Any, target: Path) -> None:
        """A body without a length that ends in order is whole for nginx too; a size knows better.

        nginx makes chunks of it, with a proper end: nothing in the reply tells that it is short.
        """
        start = reply(headers={"Connection": "close"}, length=False) + SMALL[:-1]
        server, _ = before([[Recv(), Send(start)]])
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.validations.append(SizeValidation(len(SMALL)))
        failure(download, SizeMismatch)
        assert list(target.parent.iterdir()) == []

    def test_nobody_there(self, nginx: Any, target: Path) -> None:
        """Where nobody listens behind nginx it is tried again as often as it may be, and fails."""
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
        """Ranges go through nginx: what the server behind broke off is gone on with."""
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
    """nginx says that it has enough to do."""

    @pytest.mark.parametrize("status", [429, 503])
    def test_limit_req(self, nginx: Any, status: int) -> None:
        """A download above the limit waits as long as it is told, and then comes."""
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
        # A machine that is slow enough keeps to the limit by itself, for a while.
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
        # The policy's own waits are of no length.
        assert accepted - refused > 0.9

    def test_not_ready_for_long(self, nginx: Any) -> None:
        """If the wait would be too long the download fails at once, and says when to come again."""
        server = nginx("location / { add_header Retry-After 7200 always; return 503; }")
        error = failure(into_memory(server.url("/small"), quick()), DownloadFailed)
        assert "it says that it is ready in 7200 s" in error.reason
        assert error.retry_after == 7200
        assert len(server.logged(1)) == 1


class TestPrivateNginx:
    """What the tests here stand on."""

    def test_bad_configuration(self, nginx: Any) -> None:
        """If it doesn't start, its log tells why."""
        with pytest.raises(RuntimeError, match=r'unknown directive "bogus"'):
            nginx("bogus;")

    def test_nothing_left(self, nginx: Any) -> None:
        """When it was closed, neither it nor a worker of it is there."""
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
        """It ends with whoever started it, also when that is killed."""
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
    """Whether nobody listens there."""
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
        """What brings no file is an error of its kind, and the old file stays."""
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
        if status == 444:  # nginx's own, for a connection that it closes without a word
            assert "without a reply" in error.reason
        else:
            assert f"{status}" in error.reason
        assert target.read_bytes() == b"old"


def check(download: Any) -> None:
    """See that the right content came."""
    assert download.writer.getvalue() == (BODY if "/file" in download.url else SMALL)
