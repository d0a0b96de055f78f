"""Tests of progress figures, which stay correct through restarts and with many threads."""

import re
import sys
import threading
import time
from contextlib import suppress

import pytest
from stubs import SECONDS, Stub
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadFailed,
    Event,
    Limits,
    SizeValidation,
)
from pulpcore.plugin.download.futures.engine.attempt import Attempt, record_of
from pulpcore.plugin.download.futures.engine.limited import Shared
from pulpcore.plugin.download.futures.engine.machine import begin
from pulpcore.plugin.download.futures.engine.protocol import Protocol
from pulpcore.plugin.download.futures.event import Fetched, Replied, Restarted
from pulpcore.plugin.download.futures.progress import ProgressMonitor


class Resumes(Protocol):
    """A writer that can always resume."""

    def can_resume(self, download):
        """Return true."""
        return True


class Sized(Stub):
    """A download that reports its size and brings buffers of the given sizes."""

    def __init__(self, *buffers, size=None, error=None, validated=None):
        super().__init__(self._bring, BufferWriter())
        self.buffers, self.size, self.error = buffers, size, error
        if validated is not None:
            self.validations.append(SizeValidation(validated, enforced=False))

    def _bring(self, _):
        Attempt.of(self).expect(self.size)
        Attempt.of(self).announce()
        for size in self.buffers:
            self._write(b"x" * size)
        if self.error is not None:
            raise self.error


def seen(download, **options):
    """Return the figures shown while a download runs, and its monitor."""
    shown = []
    monitor = ProgressMonitor(lambda *figures: shown.append(figures), **options)
    monitor.watch(download)
    with suppress(DownloadFailed):
        download()
    return shown, monitor


class TestTotal:
    def test_by_the_server(self):
        """The progress total is known once the response's head has arrived."""
        assert seen(Sized(1, 2, size=3))[0] == [(0, 3), (1, 3), (3, 3)]

    def test_by_a_validation(self):
        """The progress total is known from a size validation before anything is sent."""
        monitor = ProgressMonitor()
        assert monitor.total is None
        monitor.watch(Sized(validated=3))
        assert monitor.figures == (0, 3)
        assert seen(Sized(1, 2, validated=3))[0] == [(0, 3), (1, 3), (3, 3)]

    def test_unknown(self):
        """The progress total is None while unknown, and the real size at the end."""
        assert seen(Sized(1, 2))[0] == [(1, None), (3, None), (3, 3)]

    def test_empty(self):
        """The progress of an empty file ends as complete."""
        assert seen(Sized(size=0))[0] == [(0, 0)]

    def test_given(self):
        """With a given total, each file counts once, however late its size is known."""
        monitor = ProgressMonitor(total=10)
        downloads = [Sized(1, 2, size=3), Sized(2, validated=2), Sized(5)]
        for download in downloads:
            monitor.watch(download)
        assert monitor.figures == (0, 10)
        for download in downloads:
            download()
        assert monitor.figures == (10, 10)

    @pytest.mark.parametrize("total", [None, 3])
    def test_never_past(self, total):
        """The progress total is corrected when a file is larger or smaller than announced."""
        for buffers in [(2, 4), (1,), ()]:
            shown, monitor = seen(Sized(*buffers, validated=3), total=total)
            assert all(completed <= of for completed, of in shown)
            assert monitor.figures == (sum(buffers), sum(buffers))

    def test_given_too_small(self):
        """A given total that is too small is raised to the completed bytes."""
        monitor = ProgressMonitor(total=3)
        monitor.add(5)
        assert monitor.figures == (5, 5)

    def test_one_unknown_of_many(self):
        """One file of unknown size makes the progress total unknown until it has ended."""
        monitor = ProgressMonitor()
        known, unknown = Sized(2, size=2), Sized(3)
        totals = []
        unknown.register(Event.FETCHED, lambda _: totals.append(monitor.total))
        for download in known, unknown:
            monitor.watch(download)
            download.register(Event.FETCHED, lambda _: totals.append(monitor.figures))
            download()
        assert totals == [(2, 2), 2, (5, None)]
        assert monitor.figures == (5, 5)


class TestAgain:
    @pytest.mark.parametrize("total", [None, 7])
    def test_failed(self, total):
        """A failed file no longer counts in the progress; when run again, it counts again."""
        download = Sized(1, size=7, error=DownloadFailed(None, "no"))
        shown, monitor = seen(download, total=total)
        assert shown[-2:] == [(1, 7), (0, 0 if total else None)]
        download.buffers, download.error = (3, 4), None
        download()
        assert monitor.figures == (7, 7)

    def test_failed_of_unknown_size(self):
        """A failed file of unknown size no longer counts in the progress."""
        download = Sized(1, error=DownloadFailed(None, "no"))
        shown, monitor = seen(download)
        assert shown == [(1, None), (0, None)]
        download.error = None
        download()
        assert monitor.figures == (1, 1)

    def test_repaired(self):
        """A restart sets a file's progress back to 0 and updates its size."""
        download = Sized(1, 2, size=5, error=DownloadFailed(None, "no"))

        def repair(event):
            download.buffers, download.size, download.error = (4,), 4, None
            event.repaired = True

        download.register(Event.ERROR, repair)
        shown, _ = seen(download)
        assert shown == [(0, 5), (1, 5), (3, 5), (0, 5), (0, 4), (4, 4)]

    def test_resumed(self):
        """Progress continues after a resume, and a response without a size changes no total."""

        class Resuming(Sized):
            _protocol = Resumes

        download = Resuming(2, size=5, error=DownloadFailed(None, "no"))

        def repair(event):
            download.buffers, download.size, download.error = (3,), None, None
            event.repaired = True

        download.register(Event.ERROR, repair)
        assert seen(download)[0] == [(0, 5), (2, 5), (5, 5)]

    def test_smaller_version(self):
        """If a resumed attempt gets a smaller version, the progress uses its size."""
        download, monitor = Sized(), ProgressMonitor()
        monitor.watch(download)
        download.router.send(Fetched(download, b"12345"))
        Attempt.of(download).expect(3)
        download.router.send(Replied(download))
        download.router.send(Restarted(download))
        assert monitor.figures == (0, 3)

    def test_called_again(self):
        """A download that is called again counts once in the progress."""
        download = Sized(2, 3, size=5)
        _, monitor = seen(download)
        download()
        assert monitor.figures == (5, 5)


class TestShow:
    def test_many_threads(self, caplog):
        """With 32 threads, progress figures are shown in order and never exceed the total."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        shown, inside = [], threading.Lock()

        def show(completed, total):
            assert inside.acquire(blocking=False)
            shown.append((completed, total))
            inside.release()

        monitor = ProgressMonitor(show)

        def downloads():
            for n in range(300):
                sized = {"size": 60} if n % 3 else {}
                download = Sized(10, 20, 30, **sized)
                monitor.watch(download)
                yield download

        try:
            with Batch(downloads(), concurrent=32) as batch:
                for plan in batch():
                    plan.result()
        finally:
            sys.setswitchinterval(interval)
        assert caplog.records == []  # where the exception of a handler would be logged
        assert monitor.figures == (300 * 60, 300 * 60)
        assert shown[-1] == monitor.figures
        assert all(total is None or completed <= total for completed, total in shown)
        assert [completed for completed, _ in shown] == sorted(completed for completed, _ in shown)

    def test_while_another_shows(self):
        """A thread never waits while another shows figures; that one then shows the newest."""
        showing, going, shown = threading.Event(), threading.Event(), []

        def show(completed, total):
            shown.append(completed)
            showing.set()
            assert going.wait(SECONDS)

        monitor = ProgressMonitor(show)
        other = threading.Thread(target=monitor.add, args=(1,))
        other.start()
        assert showing.wait(SECONDS)
        monitor.add(2)
        monitor.add(3)
        assert shown == [1]
        going.set()
        other.join()
        assert shown == [1, 6]

    def test_that_raises(self):
        """If `show` raises, it is still called again later."""
        shown = []

        def show(completed, total):
            shown.append(completed)
            if completed == 1:
                raise ValueError("no terminal")

        monitor = ProgressMonitor(show)
        with pytest.raises(ValueError, match="terminal"):
            monitor.add(1)
        monitor.add(1)
        monitor.refresh()
        assert shown == [1, 2, 2]


def test_interrupt_before_the_turn():
    """An interrupt just before a call gets its turn to show the figures blocks no later call."""

    class Interrupted(dict):
        def setdefault(self, *_):
            raise KeyboardInterrupt

    shown = []
    monitor = ProgressMonitor(lambda *figures: shown.append(figures))
    monitor._showing = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        monitor.refresh()
    monitor._showing = {}
    monitor.add(1)
    assert shown[-1][0] == 1


def test_refreshed_while_it_shows():
    """A handler that refreshes the figures is not called within itself, but once more after."""
    depths, running = [], []

    def show(*_):
        running.append(None)
        depths.append(len(running))
        if len(depths) == 1:
            monitor.refresh()
        running.pop()

    monitor = ProgressMonitor(show)
    monitor.refresh()
    assert depths == [1, 1]


class Wait:
    """A rate limiter that makes each request wait for so many seconds."""

    def __init__(self, seconds):
        self.seconds = seconds

    def delay(self):
        """Return the wait."""
        return self.seconds


class TestWaiting:
    @pytest.fixture
    def lives(self):
        """Return `lives(*downloads)`, which advances each until it waits or has ended."""
        lives = []

        def advance(*downloads):
            lives.extend(map(begin, downloads))
            for life in lives[-len(downloads) :]:
                life.advance()

        yield advance
        for life in lives:
            life.token.cancel("the end of the test")
        lives.clear()

    def test_for_the_server(self, lives):
        """While a download waits as the server asked for, the monitor says so, and for how long."""
        error = DownloadFailed("status 503")
        error.transient, error.retry_after = True, 100
        download = Sized(1, error=error)
        download.retry = Retry(total=1)
        texts = []
        monitor = ProgressMonitor(lambda *_: texts.append(monitor.waiting))
        monitor.watch(download)
        assert monitor.waiting == ""
        lives(download)
        assert re.fullmatch(r"waiting 1[01]\d s: the server asked for it \(status 503\)", texts[-1])

    def test_to_try_again(self, lives):
        """While a download waits in its back-off, the monitor shows the reason of the failure."""
        error = DownloadFailed("connection refused")
        error.transient = True
        download = Sized(1, error=error)
        download.retry = Retry(total=1, backoff_factor=50)
        monitor = ProgressMonitor()
        monitor.watch(download)
        lives(download)
        assert monitor.waiting.endswith(" s: it then tries again (connection refused)")

    def test_the_first_of_many(self, lives):
        """If several downloads wait, the monitor shows the wait that ends first."""
        downloads = [Sized(1), Sized(1)]
        monitor = ProgressMonitor()
        for download, seconds in zip(downloads, (200, 100), strict=True):
            monitor.watch(download)
            download.rate_limiter = Wait(seconds)
        lives(*downloads)
        assert monitor.waiting == "waiting 100 s: the limit of requests a second"

    def test_not_while_others_get_on(self, lives):
        """While one download makes progress, the monitor doesn't show the waits of others."""
        waits, runs = Sized(1), Stub(lambda _: texts.append(monitor.waiting))
        texts = []
        monitor = ProgressMonitor()
        for download in waits, runs:
            monitor.watch(download)
        waits.rate_limiter = Wait(100)
        lives(waits, runs)
        assert texts == [""]
        assert monitor.waiting.startswith("waiting 100 s")

    def test_for_bandwidth(self):
        """The monitor shows a long wait for bandwidth, until it ends."""
        download = Sized(1, 1, size=2)
        download.limits = Limits(bandwidth=1)
        # Others have reserved the next 100 seconds.
        Shared.of(download.limits).bucket.take(100, 1, time.monotonic())
        texts = []

        def show(*_):
            texts.append(monitor.waiting)
            if texts[-1]:
                record_of(download).run.token.cancel("the end of the test")

        monitor = ProgressMonitor(show)
        monitor.watch(download)
        with pytest.raises(DownloadFailed, match="the end of the test"):
            download()
        assert re.fullmatch(r"waiting \d+ s: the limit of bandwidth", texts[-2])
        assert monitor.waiting == ""

    def test_for_bytes_in_flight(self):
        """While a batch holds a download back for the bytes in flight, the monitor says so."""
        monitor, seen = ProgressMonitor(), []
        is_held = threading.Event()
        downloads = [Sized(1, size=1, validated=1) for _ in range(2)]
        for download in downloads:
            monitor.watch(download)
        record_of(downloads[1]).watchers += (lambda _: is_held.set(),)
        with Batch(downloads, limits=Limits(in_flight=1)) as batch:
            for plan in batch():
                assert plan.error is None
                assert is_held.wait(SECONDS)
                seen.append(monitor.waiting)
        assert seen == ["waiting: the limit of bytes in flight", ""]

    def test_over(self):
        """The monitor no longer shows a wait that is over, nor one of a download that has ended."""
        texts = []
        download = Stub(lambda _: texts.append(monitor.waiting))
        download.rate_limiter = Wait(0.001)
        monitor = ProgressMonitor()
        monitor.watch(download)
        download()
        assert texts == [""]
        assert monitor.waiting == ""
