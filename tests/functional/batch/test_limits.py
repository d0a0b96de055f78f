"""``Limits`` against servers: bandwidth, connections to a host, and bytes in flight."""

import contextlib
import socket
import threading
import time
from typing import Any

import pytest
from http_tools import content, into_memory, quick, record
from servers.files import File, FileServer, Redirect, Status
from servers.listener import HOST

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    Event,
    FtpDownload,
    Limits,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import limited
from pulpcore.plugin.download.futures.engine.limited import Ration, limits_of

SECONDS = 60
BODY = b"0123456789abcdef" * 4096


class Recorder:
    """A bucket that records what is taken, and always makes the taker wait a moment."""

    delay = 0.001

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def take(self, size: int, rate: float, now: float) -> float:
        """Record a size."""
        self.sizes.append(size)
        return self.delay


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Replace the bucket of all limits."""
    bucket = Recorder()
    monkeypatch.setattr(limited, "Bucket", lambda: bucket)
    return bucket


def limit(download: Any, limits: Limits) -> Any:
    """Set the limits of a download and return it."""
    download.limits = limits
    return download


class TestBandwidth:
    """The limit of bandwidth."""

    def test_pieces(self, bucket, file_server):
        """Each byte passes the bucket once, in pieces that are small at a low bandwidth."""
        server = file_server({"/a": BODY})
        download = limit(into_memory(server.url("/a")), Limits(bandwidth=len(BODY)))
        events = record(download)
        assert content(download) == BODY
        assert sum(bucket.sizes) == len(BODY)
        assert max(bucket.sizes) <= len(BODY) / 32
        fetched = [event for event in events if event.NAME == Event.FETCHED]
        assert b"".join(event.buffer for event in fetched) == BODY
        assert [event.offset for event in fetched][:2] == [0, len(fetched[0].buffer)]

    def test_both_hold(self, bucket, file_server):
        """A download obeys its own bandwidth limit and its batch's. A shared one counts once."""
        server = file_server({"/a": b"content"})
        own, shared = Limits(bandwidth=1e6), Limits(bandwidth=1e6)
        for limits, count in (own, 1), (shared, 2):
            bucket.sizes.clear()
            download = limit(into_memory(server.url("/a")), own)
            with Batch([download], limits=limits) as batch:
                (plan,) = batch()
            assert plan.result().writer.getvalue() == b"content"
            assert sum(bucket.sizes) == count * len(b"content")

    def test_it_is_no_slowness(self, bucket, file_server):
        """Waiting for the bandwidth doesn't count as slowness of the server."""
        server = file_server({"/a": BODY})
        bucket.delay = 0.05
        timeout = Timeout(least_speed=1e9, window=1.0)
        download = into_memory(server.url("/a"), timeout=timeout)
        assert content(limit(download, Limits(bandwidth=len(BODY)))) == BODY

    def test_a_wait_can_be_cancelled(self, file_server):
        """A shutdown ends a download that waits for the bandwidth at once."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        begun = threading.Event()
        download.register(Event.FETCHED, lambda event: begun.set())
        with Batch([download], limits=Limits(bandwidth=0.01)) as batch:
            stopper = threading.Thread(target=lambda: (begun.wait(SECONDS), batch.shutdown()))
            stopper.start()
            (plan,) = batch()
            stopper.join()
        assert "shut down" in str(plan.error)

    def test_ftp(self, bucket, ftp_server, tmp_path):
        """The bandwidth holds for FTP, whose data connections get small buffers, too."""
        (tmp_path / "a").write_bytes(BODY)
        server = ftp_server(tmp_path)
        download = FtpDownload(server.url("/a"), BufferWriter())
        limit(download, Limits(bandwidth=len(BODY)))()
        assert sum(bucket.sizes) == len(BODY)

    def test_turned_off_meanwhile(self, file_server):
        """If a handler sets the bandwidth limit to None, it no longer applies."""
        server = file_server({"/a": BODY})
        limits = Limits(bandwidth=1000)
        download = limit(into_memory(server.url("/a")), limits)
        download.register(Event.FETCHED, lambda event: setattr(limits, "bandwidth", None))
        assert content(download) == BODY

    @pytest.mark.parametrize(
        ("rates", "size"),
        [
            ([], None),
            ([None], None),
            ([1000], 16 * 1024),
            ([1e6], 62500),
            ([1e6, 2e6], 62500),
            ([1e8], None),
        ],
    )
    def test_receive_buffers(self, rates, size):
        """With a low bandwidth the receive buffer holds the bytes of a sixteenth of a second."""
        limits = tuple(Limits(bandwidth=rate) for rate in rates)
        assert Ration(limits, "host").receive_buffer() == size

    def test_the_network_sees_it(self, file_server):
        """A connection under a limit has a small receive buffer, so that the server is slowed."""
        sizes = []

        class Slow(FileServer):
            def serve(self, connection):
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
                connection.read_request()
                connection.send(self._reply(200, (), bytes(4 << 20)).head)
                connection.socket.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    while sum(sizes) < 4 << 20:
                        sizes.append(connection.socket.send(bytes(4096)))
                stop.set()

        stop = threading.Event()
        with Slow({}) as server:
            download = limit(into_memory(server.url("/a")), Limits(bandwidth=10_000))
            with Batch([download], limits=Limits(bandwidth=10)) as batch:
                stopper = threading.Thread(target=lambda: (stop.wait(SECONDS), batch.shutdown()))
                stopper.start()
                (plan,) = batch()
                stopper.join()
        assert plan.error is not None
        assert sum(sizes) < 1 << 20


class TestPerHost:
    """The limit of connections to a host."""

    def test_most(self, file_server):
        """A batch of many threads opens no more connections than the limit allows."""
        server = file_server({"/a": b"content"}, record=False)
        downloads = [into_memory(server.url("/a")) for _ in range(100)]
        with Batch(downloads, concurrent=16, limits=Limits(per_host=2)) as batch:
            for plan in batch():
                assert plan.result().writer.getvalue() == b"content"
        assert server.most_connections <= 2

    def test_idle_connections_are_closed(self, file_server):
        """An idle connection with other credentials is closed before another is opened."""
        server = file_server({"/a": b"content"})
        limits, context = Limits(per_host=1), Context()
        for number in range(4):
            user = User(f"user{number % 2}", "")
            download = limit(into_memory(server.url("/a"), user=user), limits)
            download.context = context
            assert content(download) == b"content"
            server.until(lambda: server.open_connections == 1)
        assert server.connections == 4
        assert server.most_connections <= 2  # the server may see the end of one late
        context.close()

    def test_they_are_kept_alive(self, file_server):
        """With a limit, connections are reused as often as without."""
        server = file_server({"/a": b"content"})
        limits, context = Limits(per_host=1), Context()
        for _ in range(3):
            download = limit(into_memory(server.url("/a")), limits)
            download.context = context
            assert content(download) == b"content"
            assert download.session is limit(download.clone(), limits).session
        assert server.connections == 1
        context.close()

    def test_redirects(self, file_server):
        """Connections to a host count whether downloads name it or are redirected to it."""
        ends = file_server({"/a": b"content"}, record=False)
        begins = file_server({"/a": Redirect(f"http://localhost:{ends.port}/a")}, record=False)
        urls = [begins.url("/a"), f"http://localhost:{ends.port}/a"]
        downloads = [into_memory(urls[number % 2]) for number in range(60)]
        failed: list[Any] = []
        for download in downloads:
            download.register(Event.ERROR, failed.append)
        with Batch(downloads, concurrent=8, limits=Limits(per_host=1)) as batch:
            for plan in batch():
                assert plan.result().writer.getvalue() == b"content"
        assert ends.most_connections == 1
        assert not failed

    def test_ftp(self, ftp_server, tmp_path):
        """The limit holds for the control connections of FTP."""
        (tmp_path / "a").write_bytes(b"content")
        server = ftp_server(tmp_path)
        downloads = [FtpDownload(server.url("/a"), BufferWriter()) for _ in range(12)]
        active, most = [], []

        def begin(event):
            active.append(event)
            most.append(len(active))

        for download in downloads:
            download.register(Event.SENT, begin)
            download.register(Event.SUCCEEDED, lambda event: active.pop())
        with Batch(downloads, concurrent=6, limits=Limits(per_host=1)) as batch:
            for plan in batch():
                plan.result()
        # The place is given back just before Succeeded.
        assert max(most) <= 2

    def test_other_hosts_go_on(self, file_server):
        """A wait for a place holds no thread: 100 others finish while a host is full."""
        release = threading.Event()

        class Held(FileServer):
            def serve(self, connection):
                connection.read_request()
                self.wait(release)
                connection.send(self._reply(200, {"Connection": "close"}, b"late").head + b"late")

        free = file_server({"/a": b"content"}, record=False)
        with Held({}) as held:
            late = [into_memory(held.url("/a")) for _ in range(20)]
            soon = [into_memory(free.url("/a")) for _ in range(100)]
            with Batch([*late, *soon], concurrent=4, limits=Limits(per_host=2)) as batch:
                plans = batch()
                for _ in soon:
                    assert next(plans).result() in soon
                assert held.connections <= 2
                release.set()
                assert {plan.result() for plan in plans} == set(late)

    def test_limits_of(self):
        """`limits` of a download adds to that of its batch. A shared object counts once."""
        download = into_memory(f"http://{HOST}/")
        assert limits_of(download) == ()
        own = download.limits = Limits()
        assert limits_of(download) == (own,)


def test_no_calls_without_limits(file_server, monkeypatch):
    """A download without limits doesn't execute the code of the limits."""
    monkeypatch.setattr(limited, "time", None)
    monkeypatch.setattr(Ration, "places", None)
    server = file_server({"/a": File(b"content")})
    assert content(into_memory(server.url("/a"))) == b"content"
    assert time.monotonic() > 0


class TestInFlight:
    """The limit of bytes whose plans were not handed back."""

    @staticmethod
    def run(downloads, limits, concurrent=4):
        """Run a batch with a slow consumer; return how many bytes were in flight at most."""
        fetched, most = [], [0]
        with Batch(downloads, concurrent=concurrent, limits=limits) as batch:
            handed_back = 0
            for plan in batch():
                size = len(plan.result().writer.getvalue())
                fetched.append(size)
                # Everything that has begun, and was not handed back before this plan was asked for.
                begun = sum(each.position for each in downloads)
                most[0] = max(most[0], begun - handed_back)
                handed_back += size
        assert len(fetched) == len(downloads)
        return most[0]

    def test_known_sizes(self, file_server):
        """A limit of bytes in flight is never exceeded, and every file comes."""
        server = file_server({"/a": bytes(1000)}, record=False)
        downloads = [into_memory(server.url("/a")) for _ in range(60)]
        for download in downloads:
            download.validations.append(SizeValidation(1000))
        assert self.run(downloads, Limits(in_flight=3000)) <= 3000

    def test_unknown_sizes(self, file_server):
        """Files of unknown size count as their bytes so far, so only running ones may exceed it."""
        server = file_server({"/a": bytes(1000)}, record=False)
        downloads = [into_memory(server.url("/a")) for _ in range(60)]
        assert self.run(downloads, Limits(in_flight=3000)) <= 3000 + 4 * 1000

    def test_one_is_always_admitted(self, file_server):
        """A file that is larger than the limit of bytes in flight is downloaded alone."""
        server = file_server({"/a": bytes(1000)}, record=False)
        downloads = [into_memory(server.url("/a")) for _ in range(10)]
        for download in downloads:
            download.validations.append(SizeValidation(1000))
        assert self.run(downloads, Limits(in_flight=1)) <= 1000

    def test_failures_take_no_space(self, file_server):
        """A failed download frees its share of the limit, even while the consumer is busy."""
        server = file_server({"/a": bytes(1000)}, record=False)
        good = into_memory(server.url("/a"))
        downloads = [*(into_memory(server.url("/none")) for _ in range(5)), good]
        for download in downloads:
            download.validations.append(SizeValidation(1000))
        done = threading.Event()
        good.register(Event.SUCCEEDED, lambda event: done.set())
        with Batch(downloads, limits=Limits(in_flight=1000)) as batch:
            plans = batch()
            next(plans)
            assert done.wait(SECONDS)
            assert len(list(plans)) == 5

    def test_a_batch_for_each_plan(self, file_server):
        """A consumer that runs a batch with the same limits for each plan doesn't deadlock."""
        server = file_server({"/a": bytes(1000)}, record=False)
        limits = Limits(in_flight=1000)
        with Batch([into_memory(server.url("/a")) for _ in range(3)], limits=limits) as batch:
            for plan in batch():
                plan.result()
                inner = [limit(into_memory(server.url("/a")), limits) for _ in range(3)]
                with Batch(inner) as inside:
                    assert len([each.result() for each in inside()]) == 3

    def test_shutdown(self, file_server):
        """A shutdown ends waiting downloads, and the bytes of a closed batch count no longer."""
        server = file_server({"/a": bytes(1000)}, record=False)
        limits = Limits(in_flight=1000)
        first = [into_memory(server.url("/a")) for _ in range(9)]
        for download in first:
            download.validations.append(SizeValidation(1000))
        with Batch(first, limits=limits) as batch:
            plans = batch()
            next(plans).result()
        assert all("shut down" in str(plan.error) for plan in plans if plan.error)
        second = [into_memory(server.url("/a")) for _ in range(3)]
        assert self.run(second, limits) <= 3000

    def test_a_wrong_limit_fails_the_download(self):
        """An invalid limit fails each download of a batch, as it fails one without a batch."""
        download = limit(into_memory(f"http://{HOST}/"), Limits(in_flight="1"))
        with Batch([download]) as batch:
            (plan,) = batch()
        assert "in_flight" in str(plan.error)


def test_waits_hold_no_thread(file_server):
    """While 100 downloads wait out a Retry-After and a host is full, four threads finish 1,000."""
    release = threading.Event()

    class Held(FileServer):
        def serve(self, connection):
            connection.read_request()
            self.wait(release)
            connection.send(self._reply(200, {"Connection": "close"}, b"late").head + b"late")

    wait = Status(503, {"Retry-After": "5"})
    busy = file_server({"/a": b"content"}, faults=lambda index, _: wait if index < 100 else None)
    free = file_server({"/a": b"content"}, record=False)
    with Held({}) as full:
        late = [into_memory(busy.url("/a"), quick()) for _ in range(100)]
        late += [into_memory(full.url("/a")) for _ in range(10)]
        soon = [into_memory(free.url("/a")) for _ in range(1000)]
        # The limit is that of the host that is full: the others have plenty.
        for download in late[100:]:
            download.limits = Limits(per_host=1) if download is late[100] else late[100].limits
        with Batch([*late, *soon], concurrent=4, backlog=2000) as batch:
            plans = batch()
            done = [next(plans).download for _ in range(1000)]
            assert full.connections == 1
            release.set()
            rest = [plan.result() for plan in plans]
    assert sum(download in soon for download in done) >= 900
    assert len(rest) == 110
