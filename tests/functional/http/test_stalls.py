"""Tests of slow servers: the total limit, the least speed, and an immediate shutdown."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from http_tools import content, into_memory, names, quick, record
from servers.files import File, FileServer, Hold, Redirect, StallAfter
from servers.listener import HOST
from servers.raw import (
    Drip,
    Loop,
    RawServer,
    Read,
    Recv,
    Send,
    Stall,
    Wait,
    chunked,
    reply,
    serve,
)

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadFailed,
    Event,
    FileWriter,
    FtpDownload,
    HttpDownload,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine.attempt import record_of
from pulpcore.plugin.download.futures.rate import RateLimiter
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation
from pulpcore.plugin.download.futures.waiting.timer import Alarm

# Far more than any limit here, far less than the time-outs that would end it otherwise.
SOON = 20.0
TOTAL = 0.25
BODY = b"0123456789" * 1000
CHUNKS = reply(headers={"Transfer-Encoding": "chunked"})
REDIRECT = reply(302, {"Location": "/x"}, b"x" * 999)
WHOLE = reply(body=BODY)
HEAD = len(WHOLE) - len(BODY)
OPEN = reply(headers={"Connection": "close"}, length=False)
# A byte every 20 ms: no single read waits long, but the whole would take minutes.
EVERY = 0.02

SLOW = {
    "nothing at all": [Stall()],
    "no reply": [Recv(), Stall()],
    "head that drips": [Recv(), Drip(WHOLE, EVERY)],
    "head without end": [Recv(), Send(WHOLE[:20]), Loop([Drip(b"X: y\r\n" * 2, EVERY)])],
    "head that stops": [Recv(), Send(WHOLE[: HEAD - 3]), Stall()],
    "interim replies that drip": [Recv(), Drip(reply(100) * 99, EVERY)],
    "body that drips": [Recv(), Send(WHOLE[:HEAD]), Drip(BODY, EVERY)],
    "body that stops": [Recv(), Send(WHOLE[:-1]), Stall()],
    "chunks that drip": [Recv(), Send(CHUNKS), Drip(chunked(BODY, [5] * 99), EVERY)],
    "chunk size that drips": [Recv(), Send(CHUNKS + b"1\r\na\r\n"), Drip(b"0" * 999, EVERY)],
    "trailers that drip": [Recv(), Send(CHUNKS + b"0\r\n"), Drip(b"X: y\r\n" * 99, EVERY)],
    "chunks that stop": [Recv(), Send(CHUNKS + chunked(BODY, end=b"")), Stall()],
    "body without end": [Recv(), Send(OPEN), Loop([Drip(b"xx", EVERY)])],
    "no TLS": [Stall()],
    "TLS that drips": [Drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 999, EVERY)],
}
TLS = ("no TLS", "TLS that drips")


def url(server: RawServer, name: str) -> str:
    """Return the URL for a row of the table."""
    return server.url().replace("http:", "https:" if name in TLS else "http:")


def timed(download: Any) -> tuple[DownloadFailed, float]:
    """Return the error of a download and after how many seconds it came."""
    began = time.monotonic()
    with pytest.raises(DownloadFailed) as caught:
        download()
    return caught.value, time.monotonic() - began


def limited_from(download: Any, name: str, count: int = 1) -> None:
    """Apply the total limit from the n-th event of a kind on.

    Before that the download may take its time, so the limit certainly ends the step that follows,
    even on a slow machine. The limit still counts from the beginning.
    """
    events: list[Event] = []

    def hold(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            record_of(download).run.limit(TOTAL)

    download.register(name, hold)


class Clockwork:
    """A timer for least speeds whose windows pass when the test says so."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []

    def set(self, seconds: float, function: Any) -> Alarm:
        """Record the alarm."""
        self.alarms.append(Alarm(function))
        return self.alarms[-1]

    def cancel(self, alarm: Alarm) -> None:
        """Cancel the alarm."""
        alarm.cancel()

    def pass_window(self, *unused: Any) -> None:
        """Trigger the latest alarm."""
        self.alarms[-1].ring()


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    """Replace the timer of least speeds by a Clockwork."""
    clockwork = Clockwork()
    monkeypatch.setattr("pulpcore.plugin.download.futures.engine.speed.timer", clockwork)
    return clockwork


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of the target, which has an old file."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def untouched(target: Path) -> bool:
    """Return whether the old file is there and nothing else."""
    return target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


class TestTotal:
    # A connection that is being made can't be interrupted, so a stall in TLS ends with this
    # time-out.
    @pytest.mark.parametrize("name", SLOW)
    def test_slow_server(self, raw_server: Any, target: Path, name: str) -> None:
        """The total limit ends a run without a retry, whatever the server does slowly."""
        server = raw_server([SLOW[name]])
        connect = 3 if name in TLS else 30
        download = HttpDownload(
            url(server, name), FileWriter(target), timeout=Timeout(connect, 30, total=TOTAL)
        )
        download.retry = quick()
        events = record(download)
        error, seconds = timed(download)
        assert "total limit of 0.25 s" in error.reason
        assert "\n" not in str(error)
        assert TOTAL <= seconds < SOON
        assert error.facts is not None
        assert error.facts.attempt == 1
        assert untouched(target)
        assert names(events)[-2:] == ["ERROR", "FAILED"]
        assert not any(event.retrying for event in events if event.NAME == Event.ERROR)

    def test_what_came(self, raw_server: Any) -> None:
        """The error of the total limit says how many bytes arrived, and of how many."""
        server = raw_server([[Recv(), Send(WHOLE[:-100]), Stall()]])
        download = into_memory(server.url())

        def limit(event: Any) -> None:
            if download.position == len(BODY) - 100:
                record_of(download).run.limit(TOTAL)

        download.register(Event.FETCHED, limit)
        error, _ = timed(download)
        assert error.facts is not None
        assert (error.facts.received, error.facts.expected) == (len(BODY) - 100, len(BODY))
        assert error.facts.seconds >= TOTAL
        assert f"received {len(BODY) - 100} of {len(BODY)} bytes" in str(error)

    @pytest.mark.parametrize(
        "headers", [{}, {"Retry-After": "60"}], ids=["back-off", "Retry-After"]
    )
    def test_wait(self, raw_server: Any, monkeypatch: Any, headers: dict[str, str]) -> None:
        """The total limit also ends the wait between two attempts."""
        monkeypatch.setattr("random.uniform", lambda low, high: high)
        server = raw_server([[Loop([Recv(), Send(reply(503, headers))])]])
        download = into_memory(server.url(), quick(backoff_factor=60))
        limited_from(download, Event.ERROR)
        error, seconds = timed(download)
        assert "total limit" in error.reason
        assert seconds < SOON
        assert len(server.requests) == 1

    def test_all_attempts_together(self, raw_server: Any) -> None:
        """The total limit bounds all attempts of a run together."""
        server = raw_server([serve(reply(503))])
        download = into_memory(server.url(), quick(total=None))
        limited_from(download, Event.ERROR, count=2)
        error, seconds = timed(download)
        assert "total limit" in error.reason
        assert seconds < SOON
        assert error.facts is not None
        assert error.facts.attempt > 1

    def test_rate_limit(self, raw_server: Any) -> None:
        """The total limit ends a wait for the rate limit."""
        server = raw_server([[Loop([Recv(), Send(WHOLE)])]])
        download = into_memory(server.url())
        download.rate_limiter = RateLimiter(0.01)
        download()
        download.timeout.total = TOTAL
        error, seconds = timed(download)
        assert "total limit" in error.reason
        assert seconds < SOON

    def test_next_call(self, raw_server: Any) -> None:
        """A second call of a download has the whole total limit again."""
        scripts = [[Recv(), Stall()]]
        server = raw_server(lambda index: scripts[-1])
        download = into_memory(server.url(), timeout=Timeout(total=TOTAL))
        timed(download)
        scripts.append([Recv(), Send(WHOLE)])
        download.timeout.total = 60
        assert content(download) == BODY

    def test_in_time(self, file_server: Any, no_leaks: None) -> None:
        """A download within its total limit isn't affected, and leaves no thread or alarm."""
        server = file_server({"/a": BODY})
        assert content(into_memory(server.url("/a"), timeout=Timeout(total=60))) == BODY

    @pytest.mark.parametrize("name", ["stops", "drips"])
    def test_body_of_an_error(self, raw_server: Any, name: str) -> None:
        """An HTTP error is raised without waiting for its body, also without a limit."""
        rest = Stall() if name == "stops" else Drip(b"x" * 9990, EVERY)
        server = raw_server([[Recv(), Send(reply(404, body=b"x" * 9999)[:-9990]), rest]])
        error, seconds = timed(into_memory(server.url()))
        assert "404" in error.reason
        assert seconds < SOON

    def test_nested(self, raw_server: Any) -> None:
        """A download within a handler has its own total limit besides that of the outer one."""
        slow = raw_server([[Recv(), Stall()]])
        server = raw_server([[Loop([Recv(), Send(WHOLE)])]])
        errors = []

        def run(total: float | None) -> Any:
            inner = into_memory(slow.url(), timeout=Timeout(total=total))

            def handler(event: Event) -> None:
                errors.append(timed(inner)[0])

            return handler

        outer = into_memory(server.url(), timeout=Timeout(total=60))
        outer.register(Event.PREPARED, run(TOTAL))
        assert content(outer) == BODY
        outer = into_memory(server.url())
        limited_from(outer, Event.REPLIED)
        outer.register(Event.REPLIED, run(None))
        error, seconds = timed(outer)
        assert seconds < SOON
        assert ["0.25 s" in item.reason for item in (*errors, error)] == [True] * 3

    def test_batch(self, file_server: Any) -> None:
        """In a batch the total limit frees the threads for the other downloads."""
        server = file_server({"/slow": BODY, "/a": BODY})
        server.faults = lambda _, request: StallAfter(9) if request.path == "/slow" else None
        slow = [into_memory(server.url("/slow"), timeout=Timeout(total=TOTAL)) for _ in range(4)]
        others = [into_memory(server.url("/a"), timeout=Timeout(total=60)) for _ in range(8)]
        with Batch([*slow, *others], concurrent=2) as batch:
            errors = {plan.download: str(plan.error) for plan in batch() if plan.error}
        assert errors.keys() == set(slow)
        assert all("total limit of 0.25 s" in error for error in errors.values())


class TestLeastSpeed:
    @pytest.mark.parametrize("name", sorted(SLOW.keys() - {*TLS}))
    def test_slow_server(self, raw_server: Any, target: Path, name: str) -> None:
        """A server below the least speed ends the attempt, which is retried and then fails."""
        server = raw_server([SLOW[name]])
        timeout = Timeout(least_speed=10_000, window=0.1)
        download = HttpDownload(server.url(), FileWriter(target), timeout=timeout)
        download.retry = quick(total=1)
        events = record(download)
        error, seconds = timed(download)
        assert "slower than 10000 bytes a second for 0.1 s" in error.reason
        assert error.facts is not None
        assert error.facts.attempt == 2
        assert [event.retrying for event in events if event.NAME == Event.ERROR] == [True, False]
        assert seconds < SOON
        assert untouched(target)

    def test_next_attempt(self, raw_server: Any, clockwork: Clockwork) -> None:
        """After an attempt below the least speed, the retry resumes where it stopped."""
        validated = reply(headers={"ETag": '"1"'}, body=BODY)
        part = reply(
            206,
            {"ETag": '"1"', "Content-Range": f"bytes 6000-{len(BODY) - 1}/{len(BODY)}"},
            BODY[6000:],
        )
        server = raw_server(
            [[Recv(), Send(validated[:-4000]), Stall()], [Loop([Recv(), Send(part)])]]
        )
        download = into_memory(server.url(), quick(), timeout=Timeout(least_speed=1, window=60))

        def fall_silent(_: Event) -> None:
            if download.position == 6000:
                # Nothing arrives any more: this is the window of the last bytes, and the next one.
                clockwork.pass_window()
                clockwork.pass_window()

        download.register(Event.FETCHED, fall_silent)
        events = record(download)
        assert content(download) == BODY
        (error,) = (event.error for event in events if event.NAME == Event.ERROR)
        assert "slower than 1 bytes a second for 60 s" in error.reason
        assert server.requests[1].header("Range") == "bytes=6000-"

    def test_fast_enough(self, raw_server: Any, clockwork: Clockwork) -> None:
        """A slow transfer above the least speed goes on over many windows."""
        events = [threading.Event() for _ in range(20)]
        script: list[Any] = [Recv(), Send(WHOLE[:HEAD])]
        for number, event in enumerate(events):
            script += [Send(BODY[number * 100 : number * 100 + 100]), Wait(event)]
        server = raw_server([[*script, Send(BODY[2000:])]])
        download = into_memory(server.url(), timeout=Timeout(least_speed=1000, window=0.1))

        def look(_: Event) -> None:
            passed, rest = divmod(download.position, 100)
            if rest == 0 and passed <= len(events):
                clockwork.pass_window()
                events[passed - 1].set()

        download.register(Event.FETCHED, look)
        assert content(download) == BODY
        assert len(clockwork.alarms) > len(events)

    def test_off_by_default(self, raw_server: Any) -> None:
        """By default there is no least speed, so a server may be slow."""
        server = raw_server([[Recv(), Drip(reply(body=b"slow"), 0.005)]])
        assert content(into_memory(server.url())) == b"slow"
        assert (Timeout().total, Timeout().least_speed) == (None, None)

    def test_wait_for_the_rate_limit_is_not_slow(
        self, file_server: Any, clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Waiting for our own rate limit doesn't count against the least speed."""
        server = file_server({"/a": BODY})
        limiter = RateLimiter(1 / 3600)
        waited = []

        def wait(_: Cancellation, seconds: float) -> None:
            waited.append(round(seconds))
            for _ in range(5):
                clockwork.pass_window()

        monkeypatch.setattr(Cancellation, "wait", wait)
        for _ in range(3):
            timeout = Timeout(least_speed=1, window=60)
            download = into_memory(server.url("/a"), timeout=timeout)
            download.rate_limiter = limiter
            assert content(download) == BODY
        assert server.count == 3
        assert len(waited) == 2

    def test_wait_within_a_window(
        self, file_server: Any, clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A window of the least speed doesn't count if we waited for most of it."""
        server = file_server({"/a": BODY, "/b": Redirect("/a")})
        monkeypatch.setattr(Cancellation, "wait", lambda *unused: None)
        download = into_memory(server.url("/b"), timeout=Timeout(least_speed=1, window=60))
        # The second request of the attempt, to the redirect's target, has to wait.
        download.rate_limiter = RateLimiter(1 / 50)
        # The window ends before the first byte of content arrives.
        download.register(Event.REPLIED, clockwork.pass_window)
        assert content(download) == BODY

    def test_total_wins(self, raw_server: Any) -> None:
        """If total limit and least speed are both violated, the total limit ends the run."""
        server = raw_server([[Recv(), Drip(WHOLE, EVERY)]])
        timeout = Timeout(total=TOTAL, least_speed=10_000, window=0.05)
        error, seconds = timed(into_memory(server.url(), quick(total=10_000), timeout=timeout))
        assert "total limit" in error.reason
        assert seconds < SOON

    def test_bug_is_not_hidden(self, raw_server: Any) -> None:
        """An exception of a validation is raised unchanged with a least speed, too."""
        server = raw_server([[Recv(), Send(WHOLE)]])

        class Buggy(BufferWriter):
            def append(self, buffer: bytes) -> int:
                raise KeyError("bug")

        download = HttpDownload(server.url(), Buggy(), timeout=Timeout(least_speed=1, window=60))
        with pytest.raises(KeyError, match="bug"):
            download()


# FTP: scripts of the control connection and of the data connection.

SAY = {b"USER": b"230 ok", b"TYPE": b"200 ok", b"SIZE": b"213 10000", b"RETR": b"150 comes"}


def _ftp(upto: bytes, port: int = 0) -> list[Any]:
    """Make a script that behaves well until a command is to be answered."""
    passive = b"227 ok (127,0,0,1,%d,%d)" % divmod(port, 256)
    script: list[Any] = [Send(b"220 hello\r\n")]
    for command in (b"USER", b"TYPE", b"SIZE", b"PASV", b"RETR"):
        script.append(Read(until=b"\r\n"))
        if command == upto:
            return script
        script.append(Send(SAY.get(command, passive) + b"\r\n"))
    return script


FTP = {
    "no welcome": ([Stall()], []),
    "welcome that drips": ([Loop([Drip(b"220-x\r\n220-y\r\n", EVERY)])], []),
    "no login": ([*_ftp(b"USER"), Stall()], []),
    "login that drips": ([*_ftp(b"USER"), Drip(b"230-x\r\n" * 999, EVERY)], []),
    "no passive mode": ([*_ftp(b"PASV"), Stall()], []),
    "no answer to RETR": (b"RETR", [Stall()]),
    "no data": (b"", [Stall()]),
    "data that drips": (b"", [Drip(BODY, EVERY)]),
    "data that stops": (b"", [Send(BODY[:-1]), Stall()]),
    "no end": (b"", [Send(BODY)]),
}


@pytest.fixture
def ftp(raw_server: Any) -> Any:
    """Return `ftp(name)`, which starts the control server for a row of the table."""

    def start(name: str) -> RawServer:
        control, data = FTP[name]
        if isinstance(control, bytes):
            port = raw_server([data]).port
            control = [*_ftp(control, port), Stall()]
        server: RawServer = raw_server([control])
        return server

    return start


def ftp_download(server: RawServer, writer: Any, timeout: Timeout) -> FtpDownload:
    """Make a download from this server, with retries without delay."""
    download = FtpDownload(f"ftp://{HOST}:{server.port}/file", writer, timeout=timeout)
    download.retry = quick(total=1)
    return download


class TestFtp:
    @pytest.mark.parametrize("name", FTP)
    def test_total(self, ftp: Any, target: Path, name: str) -> None:
        """The total limit ends an FTP download at each point of the conversation."""
        server = ftp(name)
        # If nothing at all arrives, waiting for the welcome is part of connecting.
        timeout = Timeout(connect=3, read=30, total=TOTAL)
        download = ftp_download(server, FileWriter(target), timeout)
        with _ended(server):
            error, seconds = timed(download)
        assert "total limit" in error.reason
        assert seconds < SOON
        assert untouched(target)

    @pytest.mark.parametrize(
        "name", ["no answer to RETR", "no data", "data that drips", "data that stops"]
    )
    def test_least_speed(self, ftp: Any, target: Path, name: str) -> None:
        """The least speed ends an FTP download at each point of the conversation."""
        server = ftp(name)
        timeout = Timeout(least_speed=10_000, window=0.1)
        error, seconds = timed(ftp_download(server, FileWriter(target), timeout))
        assert "slower than" in error.reason
        assert seconds < SOON
        assert untouched(target)
        assert error.facts is not None
        assert error.facts.attempt == 2

    @pytest.mark.parametrize("name", FTP)
    def test_shutdown(self, ftp: Any, target: Path, name: str) -> None:
        """A batch shuts down at once, whatever an FTP server does slowly."""
        server = ftp(name)
        download = ftp_download(server, FileWriter(target), Timeout(connect=1, read=30))
        assert _shutdown(server, [download], target) < SOON


class TestShutdown:
    @pytest.mark.parametrize("name", SLOW)
    def test_slow_server(self, raw_server: Any, target: Path, name: str) -> None:
        """A batch shuts down at once, whatever an HTTP server does slowly."""
        server = raw_server([SLOW[name]])
        timeout = Timeout(connect=1 if name in TLS else 30, read=30)
        download = HttpDownload(url(server, name), FileWriter(target), timeout=timeout)
        assert _shutdown(server, [download], target) < SOON

    @pytest.mark.parametrize("limits", [{"total": 60}, {"least_speed": 1, "window": 60}])
    def test_with_limits(self, raw_server: Any, target: Path, limits: dict[str, float]) -> None:
        """A shutdown of downloads with time limits is immediate and leaves no alarm."""
        server = raw_server([[Recv(), Stall()]])
        download = HttpDownload(server.url(), FileWriter(target), timeout=Timeout(**limits))
        assert _shutdown(server, [download], target) < SOON

    def test_storm(self, raw_server: Any, target: Path) -> None:
        """A batch shuts down at once while its downloads wait in the back-off."""
        server = raw_server([[Loop([Recv(), Send(reply(503, {"Retry-After": "100"}))])]])
        download = HttpDownload(server.url(), FileWriter(target))
        assert _shutdown(server, [download], target, requests=1) < SOON

    def test_many(self, file_server: Any, tmp_path: Path) -> None:
        """A batch shuts down at once with 16 stalled threads and a thousand waiting downloads."""
        server = file_server({"/a": File(BODY, etag='"1"')}, faults=lambda *_: StallAfter(9))
        downloads = [
            HttpDownload(server.url("/a"), FileWriter(tmp_path / str(n))) for n in range(1000)
        ]
        with Batch(downloads, concurrent=16) as batch:
            plans = batch()
            thread = _stopper(batch, server, 16)
            ended = list(plans)
            thread.join(SOON)
        assert len(ended) <= 1000
        assert all("shut down" in str(plan.error) for plan in ended)
        assert list(tmp_path.iterdir()) == []

    def test_between_head_and_body(self, file_server: Any) -> None:
        """A download without a response yet ends with the reason of the shutdown."""
        event = threading.Event()
        server = file_server({"/a": BODY}, faults={0: Hold(event)})
        with Batch([into_memory(server.url("/a"))], context=Context()) as batch:
            plans = batch()
            thread = _stopper(batch, server, 1)
            plan = next(plans)
            thread.join(SOON)
            batch.context.close()
        assert "shut down" in str(plan.error)


@contextlib.contextmanager
def _ended(server: RawServer) -> Any:
    """Close the server after a while: a download that hangs fails instead of the test run."""
    timer = threading.Timer(2 * SOON, server.close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _stopper(batch: Batch, server: FileServer, requests: int) -> threading.Thread:
    """Make a thread that shuts a batch down after so many requests."""

    def stop() -> None:
        server.until(lambda: server.count >= requests)
        batch.shutdown()

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


def _shutdown(server: RawServer, downloads: list[Any], target: Path, requests: int = 0) -> float:
    """Shut a batch down while its first download waits. Return how many seconds it took."""
    took = []
    script = server._scripts[0]
    before = next(n for n, step in enumerate(script) if isinstance(step, Stall | Drip | Loop))

    def is_waiting() -> bool:
        logs = server.logs
        return bool(logs and len(logs[0].steps) >= before and len(server.requests) >= requests)

    def stop() -> None:
        server.until(is_waiting)
        began = time.monotonic()
        batch.shutdown()
        took.append(time.monotonic() - began)

    with _ended(server), Batch(downloads, concurrent=1) as batch:
        plans = batch()
        thread = threading.Thread(target=stop)
        thread.start()
        errors = [plan.error for plan in plans]
        thread.join(4 * SOON)
    assert all("shut down" in str(error) for error in errors), errors
    assert untouched(target)
    return took[0]
