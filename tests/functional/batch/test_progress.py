"""Tests of progress bars of tqdm and rich that are fed by a ProgressMonitor."""

import io
import os
from contextlib import suppress
from types import SimpleNamespace

import pytest
from http_tools import quick
from rich.console import Console
from rich.progress import Progress
from servers.files import CutAfter, File
from tqdm import tqdm

from pulpcore.plugin.download.futures import (
    Batch,
    DownloadError,
    Factory,
    FileWriter,
    HttpDownload,
)
from pulpcore.plugin.download.futures.progress import ProgressMonitor

SIZE = 300_000


class Recorded:
    """Passes figures on to a bar and records them."""

    def __init__(self, show):
        self.shown = []
        self._show = show

    def __call__(self, completed, total):
        """Take figures."""
        self.shown.append((completed, total))
        self._show(completed, total)


@pytest.fixture
def tqdm_bar(monkeypatch):
    """Give `(show, figures)` of a bar of tqdm."""
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # or it leaves a thread
    with tqdm(unit="B", unit_scale=True, file=io.StringIO()) as bar:

        def show(completed, total):
            bar.total = total
            bar.update(completed - bar.n)

        yield show, lambda: (bar.n, bar.total)


@pytest.fixture
def rich_bar():
    """Give `(show, figures)` of a bar of rich."""
    with Progress(console=Console(file=io.StringIO())) as bars:
        bars.add_task("Downloading", total=None)
        [task] = bars.tasks

        def show(completed, total):
            task.total = total
            bars.update(task.id, completed=completed)

        yield show, lambda: (task.completed, task.total)


@pytest.fixture(params=["tqdm_bar", "rich_bar"])
def bar(request):
    """Give a bar of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def get(file_server, tmp_path):
    """Return `get(server, names, show, retry=True)`: it downloads, and counts failures.

    Without retries it keeps partial files for the next run.
    """

    def run(server, names, show, retry=True):
        monitor = ProgressMonitor(show)

        def downloads():
            for name in names:
                writer = FileWriter(tmp_path / name, resume=not retry)
                download = HttpDownload(server.url(f"/{name}"), writer)
                download.retry = quick() if retry else None
                monitor.watch(download)
                yield download

        failed = 0
        with Batch(downloads(), concurrent=8) as batch:
            for plan in batch():
                try:
                    plan.result()
                except DownloadError:
                    failed += 1
        assert all(total is None or completed <= total for completed, total in show.shown)
        return failed

    return run


@pytest.mark.parametrize("tag", ['"1"', None], ids=["resumed", "restarted"])
def test_retried(file_server, get, bar, tag, caplog):
    """After a broken connection the bar still ends at the total. It steps back for a restart."""
    seen = set()

    def faults(_, request):
        is_first = request.path not in seen
        seen.add(request.path)
        return CutAfter(200_000) if is_first else None

    names = [str(n) for n in range(8)]
    files = {f"/{name}": File(os.urandom(SIZE), etag=tag) for name in names}
    show, figures = bar
    recorded = Recorded(show)
    assert get(file_server(files, faults=faults), names, recorded) == 0
    assert figures() == recorded.shown[-1] == (8 * SIZE, 8 * SIZE)
    completed = [each for each, _ in recorded.shown]
    assert (completed == sorted(completed)) == (tag is not None)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_next_run(file_server, get, bar):
    """The bar counts the partial files of an earlier run once."""
    server = file_server({"/a": File(os.urandom(SIZE), etag='"1"')}, faults={0: CutAfter(200_000)})
    show, figures = bar
    recorded = Recorded(show)
    assert get(server, ["a"], recorded, retry=False) == 1
    assert (200_000, SIZE) in recorded.shown
    assert figures() == (0, None)
    assert get(server, ["a"], recorded, retry=False) == 0
    assert figures() == (SIZE, SIZE)
    assert server.requests[1].header("Range") == "bytes=200000-"


def test_failed(file_server, get, bar):
    """A missing file is taken out of the total, so that the bar is full at the end."""
    names = ["a", "missing", "b"]
    server = file_server({"/a": b"a" * 1000, "/b": b"b" * 500})
    show, figures = bar
    assert get(server, names, Recorded(show)) == 1
    assert figures() == (1500, 1500)


def test_known_size(file_server, tmp_path):
    """The known size of an artifact counts from the start, and no longer once the file fails."""
    server = file_server({"/a": b"a" * 1000})
    monitor = ProgressMonitor()
    artifact = SimpleNamespace(size=1000)
    download = Factory(object()).build(server.url("/missing"), tmp_path / "a", artifact)
    monitor.watch(download)
    assert monitor.figures == (0, 1000)
    with suppress(DownloadError):
        download()
    assert monitor.figures == (0, None)
    download.url = server.url("/a")
    download()
    assert monitor.figures == (1000, 1000)
