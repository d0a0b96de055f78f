"""Tests of counting and displaying progress."""

import io
import math
import time

import pytest
from rich.console import Console

from pulpcore.plugin.download.futures import BufferWriter, FileDownload
from pulpcore.plugin.download.futures.cli.progress import Bars, Lines, Progress
from pulpcore.plugin.download.futures.engine.run import Wait
from pulpcore.plugin.download.futures.event import Fetched, Restarted


class Clock:
    now = 0.0

    def __call__(self):
        """Return the time that the test has set."""
        return self.now


def lines(files, size):
    """Provide progress lines, the output that they wrote, and their clock."""
    written = []
    clock = Clock()
    return Lines("Downloading", files, size, written.append, clock), written, clock


def test_count():
    """Progress counts bytes and files, and knows the total size from the beginning."""
    progress = Progress("title", 8, 8000)
    progress.add(3)
    progress.count_file()
    assert (progress.figures, progress.files_done) == ((3, 8000), 1)


def test_watch():
    """A restarted or failed download takes back the bytes it counted.

    Those of other downloads still count.
    """
    progress = Progress("title", 2, 100)
    one = FileDownload("file:///a", BufferWriter())
    progress.watch(one)
    progress.add(5)
    one.router.send(Fetched(one, b"123"))
    assert progress.completed == 8
    one.router.send(Restarted(one))
    assert progress.completed == 5


def test_tenths():
    """A line is written at each tenth of the total, with files, bytes, rate and time left."""
    progress, written, clock = lines(files=2, size=4_000_000)
    with progress:
        clock.now = 1.0
        for _ in range(7):
            progress.add(50_000)
        progress.add(50_000)
        assert written == ["Downloading: 0 of 2 files, 400.0 kB of 4.0 MB, 400.0 kB/s, 9 s left"]
        progress.add(3_600_000)
        assert len(written) == 1
        clock.now = 2.0
        progress.count_file()
    assert written[1:] == ["Downloading: 1 of 2 files, 4.0 MB of 4.0 MB, 2.0 MB/s, 0 s left"]


def test_quick():
    """Work that takes no time writes no progress lines."""
    progress, written, _ = lines(files=2, size=2)
    progress.add(1)
    progress.add(1)
    assert written == []


def test_seconds():
    """While bytes arrive, a progress line is written at least every ten seconds."""
    progress, written, clock = lines(files=1, size=None)
    for clock.now in (1.0, 9.9, 10.0, 19.9):
        progress.add(10)
    assert written == ["Downloading: 30 bytes, 3 bytes/s"]


def test_waits_that_end_together(monkeypatch):
    """Waits for the same reason that end within two seconds are written once."""
    progress, written, _ = lines(files=2, size=None)
    now = time.monotonic()
    for why, until in [
        ("a", 50),
        ("a", 51),
        ("b", 51),
        ("b", 60),
        ("b", 62.9),
        ("b", math.inf),
        ("b", math.inf),
    ]:
        monkeypatch.setattr(Lines, "wait", Wait(why, now + until))
        progress.refresh()
    assert [line.removeprefix("Downloading: ") for line in written] == [
        "waiting 50 s: a",
        "waiting 51 s: b",
        "waiting 60 s: b",
        "waiting 63 s: b",
        "waiting: b",
    ]


def test_no_bytes():
    """Empty files count as progress, too."""
    progress, written, clock = lines(files=2, size=0)
    for clock.now in (1.0, 2.0):
        progress.count_file()
    assert written == [
        "Downloading: 1 of 2 files, 0 bytes of 0 bytes, 0 bytes/s",
        "Downloading: 2 of 2 files, 0 bytes of 0 bytes, 0 bytes/s",
    ]


def test_backwards():
    """A restart doesn't write the same progress line twice."""
    progress, written, clock = lines(files=1, size=100)
    for clock.now, size in ((1.0, 50), (2.0, -50), (3.0, 50)):
        progress.add(size)
    assert len(written) == 1


def test_bars():
    """On a terminal a bar shows title, bytes and files, and prints names unchanged."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with Bars("[red]name", 2, 4_000_000, console) as progress:
        progress.add(2_000_000)
        progress.count_file()
    shown = stream.getvalue()
    assert "[red]name" in shown
    assert "2.0/4.0 MB" in shown
    assert "1/2 files" in shown


def test_bar_without_size():
    """A progress bar works without a known total size."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with Bars("name", 1, None, console) as progress:
        progress.add(2_000_000)
    assert "2.0/? MB" in stream.getvalue()
    assert "files" not in stream.getvalue()


@pytest.mark.parametrize(("files", "share"), [(2, 0.5), (None, 1.0)])
def test_bar_of_files(files, share):
    """If the total size isn't known, the bar shows how many files are done."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with Bars("name", files, None, console) as progress:
        progress.add(2_000_000)
        progress.count_file()
    # A bar without end, of a list of unknown length, is drawn whole.
    bar, size, _ = stream.getvalue().split("name ")[-1].partition(" 2.0 MB ")
    assert round(bar.count("━") / len(bar), 1) == share
    assert size


def test_reason_of_a_wait(monkeypatch):
    """While all downloads wait, the bar's line has the reason, and the files at its right end."""
    monkeypatch.setattr(Bars, "wait", Wait("busy", math.inf))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system=None)
    with Bars("name", 2, None, console):
        pass
    assert "waiting: busy".ljust(51) + "0/2 files" in stream.getvalue()


def test_unknown_number_of_files():
    """If the number of files isn't known, a progress line tells how many are done."""
    progress, written, clock = lines(files=None, size=4_000_000)
    with progress:
        clock.now = 1.0
        progress.add(400_000)
    assert written == ["Downloading: 0 files, 400.0 kB of 4.0 MB, 400.0 kB/s, 9 s left"]
