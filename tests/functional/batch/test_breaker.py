"""Tests of the circuit breaker: downloads from a host that is down fail fast, until it recovers."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from http_tools import content, failure, into_memory, quick
from processes import forked
from servers.files import FileServer, Hold, Status
from servers.listener import HOST
from servers.raw import Read, Recv, Reset, Send, Stall, reply, serve

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadError,
    DownloadFailed,
    Event,
    FtpDownload,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import breaker as health

SECONDS = 100
FAILURES = 3
NEVER = 10_000.0
BODY = b"content"


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three failures open the circuit breaker at once, without probes."""
    monkeypatch.setattr(health, "FAILURES", FAILURES)
    monkeypatch.setattr(health, "SILENCE", 0.0)
    monkeypatch.setattr(health, "PROBE", NEVER)


@pytest.fixture
def context() -> Any:
    """Make a context that downloads share."""
    with contextlib.closing(Context()) as context:
        yield context


@pytest.fixture
def refused() -> Any:
    """Return the URL of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield f"http://{HOST}:{taken.getsockname()[1]}/a"


def sharing(context: Context, url: str, tries: int = 0) -> Any:
    """Make a download with this context, by default without retries."""
    download = into_memory(url, quick(total=tries))
    download.context = context
    return download


def is_down(context: Context, url: str) -> bool:
    """Return whether a download fails without being tried."""
    try:
        sharing(context, url)()
    except DownloadError as error:
        return "not tried" in error.reason
    return False


def bring_down(context: Context, url: str) -> None:
    """Let attempts fail until the circuit breaker opens."""
    for _ in range(FAILURES):
        assert not is_down(context, url)
    assert is_down(context, url)


DOWN: dict[str, Callable[[Any], str]] = {
    "reset": lambda raw: raw([[Recv(), Reset()]]).url(),
    "closed": lambda raw: raw([[Recv()]]).url(),
    "502": lambda raw: raw([serve(reply(502))]).url(),
    "503": lambda raw: raw([serve(reply(503))]).url(),
    "504": lambda raw: raw([serve(reply(504))]).url(),
    "429": lambda raw: raw([serve(reply(429))]).url(),
}


class TestBatch:
    @pytest.mark.parametrize("name", [*DOWN, "refused"])
    def test_fails_fast(self, raw_server: Any, refused: str, name: str, monkeypatch: Any) -> None:
        """When a host is down, a few of hundreds of downloads find out. The rest fail at once."""
        monkeypatch.setattr("random.uniform", lambda low, high: high)
        url = refused if name == "refused" else DOWN[name](raw_server)
        # Waiting for all of them would take hours.
        retry = quick(total=10, backoff_factor=0.05)
        began = time.monotonic()
        with Batch([into_memory(url, retry) for _ in range(300)], concurrent=4) as batch:
            errors = [plan.error for plan in batch()]
        assert time.monotonic() - began < SECONDS
        assert all(type(error) is DownloadFailed for error in errors)
        tried = [error for error in errors if "not tried" not in str(error)]
        assert 1 <= len(tried) <= FAILURES + 4
        reason = next(str(error) for error in errors if error not in tried)
        assert "the host seems to be down" in reason
        assert "attempts in a row failed" in reason
        assert url in reason

    def test_server_is_let_be(self, raw_server: Any) -> None:
        """A server that is down gets hardly more requests than it takes to open the breaker."""
        server = raw_server([serve(reply(503))])
        with Batch([into_memory(server.url(), quick()) for _ in range(300)]) as batch:
            assert all(plan.error for plan in batch())
        # A refusal beside other attempts isn't counted as a failure: see engine.host.
        assert len(server.requests) <= (FAILURES + 1) * batch.concurrent

    def test_recovers(self, file_server: Any, monkeypatch: Any) -> None:
        """When the server recovers in the middle of a batch, the rest of the batch succeeds."""
        server = file_server({"/a": BODY}, faults=lambda *_: Status(503))
        monkeypatch.setattr(health, "PROBE", 0.02)
        errors: list[Any] = []

        def downloads() -> Any:
            while not errors or errors[-1] is not None:
                if len(errors) > 50:
                    server.faults = {}
                yield into_memory(server.url("/a"))
            for _ in range(50):
                yield into_memory(server.url("/a"))

        with Batch(downloads(), concurrent=2, backlog=2) as batch:
            for plan in batch():
                errors.append(plan.error)  # noqa: PERF401 - downloads() looks at it meanwhile
        assert errors.count(None) >= 51
        # All but those that the other thread was working on, whenever it reports.
        late = [error for error in errors[errors.index(None) :] if error is not None]
        assert len(late) < batch.concurrent


class TestLife:
    def test_recovers(self, file_server: Any, context: Context, monkeypatch: Any) -> None:
        """The circuit breaker lets one probe through at a time, and closes if it succeeds."""
        server = file_server({"/a": BODY}, faults=lambda *_: Status(503))
        url = server.url("/a")
        bring_down(context, url)
        server.faults = {}
        assert is_down(context, url)
        assert server.count == FAILURES
        monkeypatch.setattr(health, "PROBE", 0.0)
        assert content(sharing(context, url)) == BODY
        monkeypatch.setattr(health, "PROBE", NEVER)
        assert not is_down(context, url)

    def test_head_is_enough(self, file_server: Any, context: Context, monkeypatch: Any) -> None:
        """The head of a good response closes the circuit breaker, before the body has arrived."""
        server = file_server({"/a": BODY}, faults=lambda *_: Status(503))
        url = server.url("/a")
        bring_down(context, url)
        server.faults = {}
        monkeypatch.setattr(health, "PROBE", 0.0)
        probe = sharing(context, url)
        others = []

        def look(event: Event) -> None:
            monkeypatch.setattr(health, "PROBE", NEVER)
            others.append(is_down(context, url))

        probe.register(Event.FETCHED, look)
        probe()
        assert others == [False]

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_overload(self, file_server: Any, context: Context, status: int) -> None:
        """The statuses of an overloaded server count as failures of the host."""
        server = file_server({"/a": BODY}, faults=lambda *_: Status(status))
        bring_down(context, server.url("/a"))

    @pytest.mark.parametrize("status", [200, 404, 403, 401, 500, 410])
    def test_other_replies(self, file_server: Any, context: Context, status: int) -> None:
        """Any response but an overload error resets the breaker's count of failures."""
        server = file_server(
            {"/a": BODY}, faults=lambda n, _: Status(status if n % FAILURES == 0 else 503)
        )
        assert not any(is_down(context, server.url("/a")) for _ in range(5 * FAILURES))

    def test_retry_after(self, file_server: Any, context: Context) -> None:
        """Responses with Retry-After never open the circuit breaker."""
        server = file_server(
            {"/a": BODY}, faults=lambda *_: Status(429, {"Retry-After": "0"}.items())
        )
        url = server.url("/a")
        assert not any(is_down(context, url) for _ in range(3 * FAILURES))

    def test_cut_in_the_body(self, raw_server: Any, context: Context) -> None:
        """Responses that are cut in the body never open the circuit breaker."""
        server = raw_server([[Recv(), Send(reply(body=BODY)[:-1])]])
        assert not any(is_down(context, server.url()) for _ in range(5 * FAILURES))

    def test_two_hosts(self, file_server: Any, context: Context, refused: str) -> None:
        """Each pair of host and port has its own circuit breaker."""
        server = file_server({"/a": BODY})
        bring_down(context, refused)
        assert content(sharing(context, server.url("/a"))) == BODY
        assert is_down(context, refused)

    def test_two_contexts(self, context: Context, refused: str) -> None:
        """Each context has its own circuit breakers."""
        bring_down(context, refused)
        with contextlib.closing(Context()) as other:
            assert not is_down(other, refused)

    def test_alone(self, refused: str) -> None:
        """A download with its own context is always tried, with all its retries."""
        download = into_memory(refused, quick(total=5 * FAILURES))
        for _ in range(2):
            error = failure(download, DownloadFailed)
            assert "refused" in error.reason
            assert error.facts is not None
            assert error.facts.attempt == 5 * FAILURES + 1

    def test_not_tried_is_no_sign_of_life(self, file_server: Any, context: Context) -> None:
        """A retry that the circuit breaker refuses doesn't close it."""
        server = file_server({"/a": BODY}, faults=lambda *_: Status(503))
        url = server.url("/a")
        download = sharing(context, url, tries=1)
        first = []

        def others_find_out(event: Any) -> None:
            if not first:
                first.append(event)
                # It will be retried; meanwhile other downloads fail.
                for _ in range(FAILURES - 1):
                    is_down(context, url)

        download.register(Event.ERROR, others_find_out)
        assert "not tried" in failure(download).reason
        assert is_down(context, url)
        assert server.count == FAILURES

    def test_cancelled_is_no_failure(self, file_server: Any, context: Context) -> None:
        """Downloads cancelled while waiting for a response don't count as failures of the host."""
        go_on = threading.Event()
        server = file_server({"/a": BODY}, faults=lambda *_: Hold(go_on))
        url = server.url("/a")
        with Batch(
            [into_memory(url) for _ in range(2 * FAILURES)],
            concurrent=2 * FAILURES,
            context=context,
        ) as batch:
            plans = batch()
            thread = _stop_when(server, 2 * FAILURES, batch)
            assert all("shut down" in str(plan.error) for plan in plans)
            thread.join(SECONDS)
        server.faults = {}
        assert content(sharing(context, url)) == BODY

    def test_settings_are_no_failure(self, file_server: Any, context: Context) -> None:
        """A request that can't be sent doesn't count as a failure of the host."""
        server = file_server({"/a": BODY})
        url = server.url("/a")
        for _ in range(2 * FAILURES):
            download = sharing(context, url)
            download.headers["X"] = "a\nb"
            failure(download)
        assert content(sharing(context, url)) == BODY


def _stop_when(server: FileServer, requests: int, batch: Batch) -> threading.Thread:
    """Make a thread that shuts a batch down after so many requests."""

    def stop() -> None:
        server.until(lambda: server.count >= requests)
        batch.shutdown()

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


class TestFtp:
    def ftp(self, context: Context, port: int) -> FtpDownload:
        """Make an FTP download with this context."""
        download = FtpDownload(f"ftp://{HOST}:{port}/a", BufferWriter())
        download.retry = None
        download.context = context
        return download

    def test_down(self, raw_server: Any, context: Context) -> None:
        """The circuit breaker also opens for an FTP server that is down."""
        server = raw_server([[Reset()]])
        for _ in range(FAILURES):
            assert "not tried" not in failure(self.ftp(context, server.port)).reason
        assert "not tried" in failure(self.ftp(context, server.port)).reason
        assert server.connections == FAILURES

    def test_refusal_is_a_sign_of_life(self, raw_server: Any, context: Context) -> None:
        """An FTP server that refuses the login counts as up."""
        refuses = [Send(b"220 hi\r\n"), Read(until=b"\r\n"), Send(b"530 no\r\n"), Stall()]
        server = raw_server(lambda n: [Reset()] if n % FAILURES else refuses)
        reasons = [failure(self.ftp(context, server.port)).reason for _ in range(5 * FAILURES)]
        assert not any("not tried" in reason for reason in reasons)
        assert sum("530 no" in reason for reason in reasons) == 5


def test_forked_child(file_server: Any, context: Context) -> None:
    """A forked child can download with the parent's context, and so can the parent afterwards."""
    server = file_server({"/a": BODY})
    url = server.url("/a")
    assert content(sharing(context, url)) == BODY
    assert forked(lambda: content(sharing(context, url))) == 0
    assert content(sharing(context, url)) == BODY
