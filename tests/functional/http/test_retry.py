"""Tests of retries: transient errors are retried within one budget, and no others."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest
from http_tools import TRANSIENT, chain, content, failure, into_memory, names, quick, record
from servers.files import CutAfter, File, ResetAfter, Status
from servers.raw import Cut, Recv, Reset, Send, Stall, chunked, reply, serve
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Timeout,
)
from pulpcore.plugin.download.futures.validation import DigestMismatch

BODY = b"content " * 1000
WHOLE = reply(body=BODY)
CHUNKED = reply(headers={"Transfer-Encoding": "chunked"}, body=chunked(BODY, [1000, 2000]))


def retrying(events: list[Any]) -> list[bool]:
    """Return the `retrying` value of each Error event."""
    return [event.retrying for event in events if event.NAME == Event.ERROR]


class TestStatuses:
    @pytest.mark.parametrize("status", TRANSIENT)
    def test_transient(self, file_server: Any, status: int) -> None:
        """A transient HTTP status is retried until it is gone."""
        server = file_server({"/a": BODY}, faults={n: Status(status, (), b"x") for n in range(3)})
        download = into_memory(server.url("/a"), quick(3))
        events = record(download)
        assert content(download) == BODY
        failed = ["SENT", "REPLIED", "ERROR"] * 3
        assert names(events) == [
            "PREPARED",
            *failed,
            "SENT",
            "REPLIED",
            "FETCHED",
            "SUCCEEDED",
        ]
        assert retrying(events) == [True] * 3
        assert server.connections == 1

    @pytest.mark.parametrize("status", TRANSIENT)
    def test_by_default(self, file_server: Any, status: int) -> None:
        """By default transient statuses are retried, first after less than half a second."""
        server = file_server({"/a": BODY}, faults={0: Status(status)})
        assert content(by_default(server.url("/a"))) == BODY
        assert server.count == 2

    @pytest.mark.parametrize(
        "status", [201, 204, 302, 304, 400, 401, 403, 404, 407, 409, 410, 416, 418, 501, 505, 507]
    )
    def test_others(self, file_server: Any, status: int) -> None:
        """A permanent HTTP status isn't retried."""
        server = file_server({"/a": File(b"", status=status)})
        download = into_memory(server.url("/a"), quick())
        events = record(download)
        failure(download)
        assert (retrying(events), server.count) == ([False], 1)

    def test_own_list(self, file_server: Any) -> None:
        """The policy's status_forcelist decides which statuses are retried."""
        server = file_server({"/a": BODY}, faults={0: Status(418), 1: Status(503)})
        download = into_memory(server.url("/a"), quick(status_forcelist=[418]))
        assert "503" in failure(download, DownloadFailed).reason
        assert server.count == 2


def by_default(url: str) -> HttpDownload:
    """Make a download into memory with the default policy."""
    download = into_memory(url)
    del download.retry
    return download


class TestNetwork:
    @pytest.mark.parametrize(
        "script",
        {
            "no reply": [Recv()],
            "reset": [Recv(), Reset()],
            "not even read": [Reset()],
            "in the status line": [Recv(), Send(WHOLE[:7])],
            "after the status line": [Recv(), Send(WHOLE[:17])],
            "in the head": [Recv(), Send(WHOLE[:30]), Reset()],
            "before the body": [Recv(), Send(WHOLE[: -len(BODY)])],
            "in the body": [Recv(), Send(WHOLE[:-4000])],
            "reset in the body": [Recv(), Send(WHOLE[:-4000]), Reset()],
            "before the last byte": [Recv(), Send(WHOLE[:-1]), Cut()],
            "in a chunk": [Recv(), Send(CHUNKED[:1500])],
            "in a chunk's size": [Recv(), Send(CHUNKED[: CHUNKED.index(b"3e8") + 1])],
            "before the last chunk": [Recv(), Send(CHUNKED[:-5])],
            "in the last chunk": [Recv(), Send(CHUNKED[:-2])],
            "before the end": [Recv(), Send(CHUNKED[:-1])],
            "stalled": [Recv(), Stall()],
            "stalled in the head": [Recv(), Send(WHOLE[:20]), Stall()],
            "stalled in the body": [Recv(), Send(WHOLE[:-9]), Stall()],
            "stalled in a chunk": [Recv(), Send(CHUNKED[:-3]), Stall()],
        }.items(),
        ids=lambda item: item[0],
    )
    def test_transient(self, raw_server: Any, script: tuple[str, list[Any]]) -> None:
        """Each way to break a response is retried, and leaves nothing in the content."""
        server = raw_server([script[1], script[1], serve(WHOLE)])
        timeout = Timeout(read=0.2 if "stalled" in script[0] else 60)
        download = into_memory(server.url(), quick(2), timeout=timeout)
        download.validations.append(SizeValidation(len(BODY)))
        events = record(download)

        def be_patient(_: Event) -> None:
            if len(retrying(events)) == 2:  # the next one answers, even if late
                timeout.read = 60

        download.register(Event.ERROR, be_patient)
        assert content(download) == BODY
        assert retrying(events) == [True, True]
        assert server.connections == 3

    @pytest.mark.parametrize(
        "data",
        [
            b"nonsense\r\n\r\n",
            reply(headers={"Content-Length": "-5"}, body=BODY),
            reply(headers={"Transfer-Encoding": "gzip"}, body=BODY),
            reply(headers={"Transfer-Encoding": "chunked"}, body=b"zz\r\n"),
        ],
    )
    def test_framing(self, raw_server: Any, data: bytes) -> None:
        """A response with untrustworthy framing is an error that says so."""
        server = raw_server([[Recv(), Send(data)]])
        assert "can't be trusted" in failure(into_memory(server.url()), DownloadFailed).reason

    @pytest.fixture
    def nobody(self) -> Iterator[int]:
        """Return a port where nobody listens and which nobody else can take."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield taken.getsockname()[1]

    @pytest.fixture
    def tarpit(self) -> Iterator[int]:
        """Return a port that accepts no connection, because its queue is full."""
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            taken = socket.create_connection(server.getsockname(), timeout=30)
            with taken:
                yield server.getsockname()[1]

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_refused(self, nobody: int, scheme: str) -> None:
        """Refused connections are retried as often as the policy says."""
        download = into_memory(f"{scheme}://127.0.0.1:{nobody}/", quick(2))
        events = record(download)
        assert "refused" in failure(download, DownloadFailed).reason
        assert retrying(events) == [True, True, False]

    def test_connect_time_out(self, tarpit: int) -> None:
        """Connect time-outs are retried as often as the policy says."""
        download = into_memory(f"http://127.0.0.1:{tarpit}/", quick(1), timeout=Timeout(0.1, 60))
        events = record(download)
        began = time.monotonic()
        assert "time-out" in failure(download, DownloadFailed).reason
        # The system itself waits two minutes, and the read time-out is one minute.
        assert time.monotonic() - began < 50
        assert retrying(events) == [True, False]

    def test_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Temporary failures of name resolution are retried."""

        def unknown(*unused: object, **options: object) -> None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        download = into_memory("http://files.example.test/", quick(1))
        events = record(download)
        reason = failure(download, DownloadFailed).reason
        assert "resolved" in reason
        assert "Temporary failure" in reason
        assert retrying(events) == [True, False]

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            ("ENETUNREACH", "Network is unreachable"),
            ("EHOSTUNREACH", "No route to host"),
            ("ECONNABORTED", "Software caused connection abort"),
        ],
    )
    def test_other_failures(self, monkeypatch: pytest.MonkeyPatch, number: str, words: str) -> None:
        """Other errors of the system are reported in its own words."""
        import errno

        def connect(self: socket.socket, address: object) -> int:
            return getattr(errno, number)

        monkeypatch.setattr(socket.socket, "connect_ex", connect)
        download = into_memory("http://127.0.0.1:1/", quick(1))
        events = record(download)
        assert words in failure(download, DownloadFailed).reason
        assert retrying(events) == [True, False]


class TestNotRetried:
    def test_mismatch(self, file_server: Any) -> None:
        """A failed validation isn't retried by itself."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"), quick())
        download.validations.append(DigestValidation("md5", "0" * 32))
        failure(download, DigestMismatch)
        assert server.count == 1

    def test_disk(self, file_server: Any, tmp_path: Any) -> None:
        """A target that can't be written isn't retried."""
        server = file_server({"/a": BODY})
        (tmp_path / "file").write_text("")
        download = HttpDownload(server.url("/a"), FileWriter(tmp_path / "file" / "below"))
        download.retry = quick()
        failure(download, DownloadFailed)
        assert server.count == 0

    def test_what_cant_be_started_again(self, file_server: Any) -> None:
        """If the writer can't restart, the original error is raised after the first bytes."""

        class Counting(SizeValidation):
            def update(self, buffer: bytes) -> None:
                super().update(buffer)

        server = file_server({"/a": BODY}, faults={0: Status(503), 1: CutAfter(5)})
        download = into_memory(server.url("/a"), quick())
        download.validations.append(Counting(len(BODY)))
        events = record(download)
        assert "ended before" in failure(download, DownloadFailed).reason
        assert retrying(events) == [True, False]

    def test_no_policy(self, file_server: Any) -> None:
        """With retry=None nothing is retried, not even transient statuses or network errors."""
        for fault in (Status(503), CutAfter(5), ResetAfter(0, whole=True)):
            server = file_server({"/a": BODY}, faults={0: fault})
            download = into_memory(server.url("/a"))
            download.retry = None
            events = record(download)
            failure(download, DownloadFailed)
            assert (retrying(events), server.count) == ([False], 1)

    def test_bug(self, file_server: Any) -> None:
        """An exception that is no DownloadError publishes no Error event and isn't retried."""

        class Broken(SizeValidation):
            def update(self, buffer: bytes) -> None:
                raise KeyError("bug")

        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"), quick())
        download.validations.append(Broken(0))
        events = record(download)
        with pytest.raises(KeyError, match="bug"):
            download()
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FAILED"]
        assert server.count == 1


class TestBudget:
    @pytest.mark.parametrize("total", [0, 1, 5])
    def test_total(self, file_server: Any, total: int) -> None:
        """The policy's `total` is the number of retries, after which the last error is raised."""
        server = file_server({"/a": BODY}, faults=lambda index, request: Status(503))
        download = into_memory(server.url("/a"), quick(total))
        events = record(download)
        error = failure(download, DownloadFailed)
        assert server.count == total + 1
        assert retrying(events) == [True] * total + [False]
        assert f"attempt {total + 1}" in str(error)
        assert [e.NAME for e in events if e.NAME in ("FAILED", "SUCCEEDED")] == ["FAILED"]

    def test_one_for_all_kinds(self, file_server: Any) -> None:
        """Statuses, connections and bodies share one retry budget."""
        faults = {0: ResetAfter(0, whole=True), 1: Status(503), 2: CutAfter(10), 3: Status(429)}
        server = file_server({"/a": BODY}, faults=faults)
        assert "429" in failure(into_memory(server.url("/a"), quick(3))).reason
        server = file_server({"/a": BODY}, faults=faults)
        assert content(into_memory(server.url("/a"), quick(4))) == BODY

    @pytest.mark.parametrize("etag", [None, '"e"'])
    def test_little_progress(self, file_server: Any, etag: str | None) -> None:
        """A server that always cuts after a few bytes uses up the retry budget."""
        server = file_server(
            {"/a": File(BODY * 100, etag=etag)}, faults=lambda index, request: CutAfter(1000)
        )
        failure(into_memory(server.url("/a"), quick(4)), DownloadFailed)
        assert server.count == 5

    def test_real_progress(self, file_server: Any) -> None:
        """An attempt that made substantial progress renews the retry budget."""
        body = BODY * 200
        server = file_server(
            {"/a": File(body, etag='"e"')}, faults=lambda index, request: CutAfter(100_000)
        )
        assert content(into_memory(server.url("/a"), quick(1))) == body
        assert server.count == len(body) // 100_000

    def test_progress_to_the_same_place(self, file_server: Any) -> None:
        """Reaching the same offset again doesn't renew the retry budget."""
        body = BODY * 200
        server = file_server({"/a": body}, faults=lambda index, request: CutAfter(100_000))
        failure(into_memory(server.url("/a"), quick(2)), DownloadFailed)
        assert server.count == 3

    def test_renewed_for_the_next_run(self, file_server: Any) -> None:
        """Each run has its own retry budget and starts with attempt 1."""
        server = file_server({"/a": BODY}, faults=lambda index, request: Status(503))
        download = into_memory(server.url("/a"), quick(2))
        for _ in range(2):
            assert "attempt 3" in str(failure(download, DownloadFailed))
        assert server.count == 6

    def test_endless(self, file_server: Any) -> None:
        """total=None allows any number of retries."""
        server = file_server(
            {"/a": BODY}, faults=lambda index, request: Status(503) if index < 50 else None
        )
        assert content(into_memory(server.url("/a"), quick(None))) == BODY

    def test_repairs_are_counted_apart(self, file_server: Any) -> None:
        """Repairs by a handler don't use up the retry budget."""
        server = file_server({"/a": BODY}, faults={0: Status(401), 1: Status(503), 2: Status(503)})
        download = into_memory(server.url("/a"), quick(2))

        def repair(event: Any) -> None:
            event.repaired = event.download.status == 401

        download.register(Event.ERROR, repair)
        assert content(download) == BODY

    def test_back_off(self, file_server: Any) -> None:
        """The policy's back-off is waited for, up to its maximum."""
        server = file_server({"/a": BODY}, faults={n: Status(503) for n in range(4)})
        policy = quick(4, backoff_factor=1000, backoff_max=0.05)
        assert content(into_memory(server.url("/a"), policy)) == BODY

    def test_logged(self, file_server: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Each retry is logged with its reason."""
        caplog.set_level("INFO", "pulpcore")
        server = file_server({"/a": BODY}, faults={0: Status(503)})
        content(into_memory(server.url("/a"), quick()))
        assert [r for r in caplog.records if "503" in r.getMessage() and r.levelname == "INFO"]


class TestRetryAfter:
    @staticmethod
    def date(**offset: float) -> str:
        """Format a time from now as an HTTP date, in whole seconds."""
        return format_datetime(datetime.now(UTC) + timedelta(**offset), usegmt=True)

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize("form", ["seconds", "date"])
    def test_waited_for(self, file_server: Any, form: str, status: int) -> None:
        """The wait is at least the server's Retry-After, even if the back-off is shorter."""
        fields: dict[str, str] = {}
        server = file_server({"/a": BODY}, faults={0: Status(status, fields)})
        policy = quick(1, backoff_factor=0)
        download = into_memory(server.url("/a"), policy, timeout=Timeout(total=100))
        fields["Retry-After"] = "1" if form == "seconds" else self.date(seconds=2)
        ready = time.time() + 1
        if form == "date":
            ready = parsedate_to_datetime(fields["Retry-After"]).timestamp()
        assert content(download) == BODY
        # The tolerance of a tenth is for differences between the clocks.
        assert ready - 0.1 < time.time()

    @pytest.mark.parametrize(
        "value", ["0", "past", "", "soon", "-1", "1.5x", "Xyz, 99 Foo 2020", "9" * 400 + "x"]
    )
    def test_no_wait(self, file_server: Any, value: str) -> None:
        """A missing, past or invalid Retry-After leaves the wait to the back-off."""
        value = self.date(hours=-1) if value == "past" else value
        server = file_server({"/a": BODY}, faults={0: Status(503, {"Retry-After": value})})
        assert content(into_memory(server.url("/a"), quick(1))) == BODY

    @pytest.mark.parametrize(
        "value", ["121", "3600", "99999999999", "9" * 400, "hour", "Fri, 31 Dec 9999 23:59:59 GMT"]
    )
    def test_beyond_the_cap(self, file_server: Any, value: str) -> None:
        """A Retry-After above the cap fails at once and says when to retry."""
        value = self.date(hours=1) if value == "hour" else value
        server = file_server({"/a": BODY}, faults={0: Status(503, {"Retry-After": value})})
        download = into_memory(server.url("/a"), quick())
        events = record(download)
        error = failure(download, DownloadFailed)
        assert (retrying(events), server.count) == ([False], 1)
        assert error.retry_after is not None
        assert error.retry_after > 120
        assert "ready" in error.reason

    def test_cap_is_settable(self, file_server: Any) -> None:
        """The cap of Retry-After is the policy's retry_after_max."""
        faults = {0: Status(503, {"Retry-After": "1"})}
        server = file_server({"/a": BODY}, faults=faults)
        download = into_memory(server.url("/a"), quick())
        download.retry_after_max = 0.5
        assert failure(download).retry_after == 1

    def test_not_respected(self, file_server: Any) -> None:
        """A policy may ignore Retry-After."""
        server = file_server({"/a": BODY}, faults={0: Status(503, {"Retry-After": "9999"})})
        policy = quick(respect_retry_after_header=False)
        assert content(into_memory(server.url("/a"), policy)) == BODY

    def test_not_for_what_is_final(self, file_server: Any) -> None:
        """Retry-After with a permanent error is ignored."""
        server = file_server({"/a": BODY}, faults={0: Status(404, {"Retry-After": "0"})})
        failure(into_memory(server.url("/a"), quick()))
        assert server.count == 1


def test_default_policy() -> None:
    """The default policy has six retries, 0.4 s to 60 s apart, and two minutes of Retry-After."""
    download = HttpDownload("http://127.0.0.1/", None)
    assert isinstance(download.retry, Retry)
    policy = download.retry
    assert (policy.total, policy.backoff_factor, policy.backoff_max) == (6, 0.4, 60)
    assert set(policy.status_forcelist) == set(TRANSIENT)
    assert policy.respect_retry_after_header
    assert download.retry_after_max == 120


def test_policy_is_not_shared(file_server: Any) -> None:
    """Changing the retry policy of one download doesn't affect others."""
    one, two = (HttpDownload("http://127.0.0.1/", None) for _ in range(2))
    one.retry = None
    assert two.retry is not None


def test_causes(raw_server: Any) -> None:
    """The last error is raised, with a cause of its own attempt only."""
    server = raw_server([[Recv(), Reset()], [Recv(), Send(reply(503))]])
    error = failure(into_memory(server.url(), quick(1)), DownloadFailed)
    assert "503" in error.reason
    assert not [item for item in chain(error) if isinstance(item, OSError)]
