"""Tests of batches on a cluster of Dask's, with scheduler and workers on loopback.

One cluster is Dask's own LocalCluster. The workers of the other are programs that the test starts
and kills, as on machines of a real cluster.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from executors import Remote
from servers.files import CutAfter, Status

import dask
from pulpcore.plugin.download.futures import Batch, DownloadFailed, HttpDownload
from pulpcore.plugin.download.futures.progress import ProgressMonitor

SECONDS = 60
ROOT = Path(__file__).parents[2]
COUNT = 5000


def content(number):
    """Return the content of a file."""
    return f"file {number}\n".encode() * (1 + number % 50)


@pytest.fixture(scope="module")
def server():
    """Serve 5,000 files. About 2 % of the requests break or fail."""
    from servers.files import FileServer

    def faults(number, request):
        return {7: CutAfter(5), 50: Status(503)}.get(number % 100)

    files = {f"/{number}": content(number) for number in range(COUNT)}
    with FileServer(files, faults=faults, record=False) as running:
        yield running


@contextlib.contextmanager
def program(*arguments, folder):
    """Run a program of Dask's, and end it."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "support"), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


class Cluster:
    """A scheduler, and workers that are started one by one."""

    def __init__(self, folder, stack):
        self._folder, self._stack = folder, stack
        self._file = folder / "scheduler.json"
        stack.enter_context(
            program(
                *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
                *("--scheduler-file", self._file),
                folder=folder,
            )
        )
        self.client = stack.enter_context(Client(scheduler_file=str(self._file)))

    def add_worker(self):
        """Start a worker, and return its process."""
        return self._stack.enter_context(
            program(
                *("worker", "--scheduler-file", self._file, "--nthreads", "1", "--no-dashboard"),
                *("--no-nanny", "--host", "127.0.0.1"),
                folder=self._folder,
            )
        )


@pytest.fixture
def cluster(tmp_path):
    """Start a cluster with two workers."""
    (tmp_path / "cluster").mkdir()
    with contextlib.ExitStack() as stack:
        found = Cluster(tmp_path / "cluster", stack)
        found.workers = [found.add_worker(), found.add_worker()]
        found.client.wait_for_workers(2, timeout=SECONDS)
        yield found


def downloads(server, folder, count=COUNT):
    """Make the downloads."""
    for number in range(count):
        yield HttpDownload(server.url(f"/{number}"), folder / str(number))


def check(plans, folder, count=COUNT):
    """Check that nothing is lost, twice or partial."""
    assert [plan.error for plan in plans if plan.error is not None] == []
    assert len({plan.download.url for plan in plans}) == len(plans) == count
    assert len(os.listdir(folder)) == count
    for number in range(count):
        assert (folder / str(number)).read_bytes() == content(number)


def test_local_cluster(server, tmp_path):
    """On a LocalCluster of two processes, 5,000 files of which 2 % break each come once."""
    folder = tmp_path / "new"
    with (
        dask.config.set({"distributed.worker.daemon": True}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        progress, watched = ProgressMonitor(), []

        def all_of_them():
            for download in downloads(server, folder):
                progress.watch(download)
                watched.append(download)
                yield download

        with Batch(all_of_them(), executor=client.get_executor()) as batch:
            plans = list(batch())
        check(plans, folder)
        size = sum(len(content(number)) for number in range(COUNT))
        assert progress.figures == (size, size)
        assert {download.position for download in watched[:50]} == {
            len(content(number)) for number in range(50)
        }


def test_a_worker_is_killed_and_one_joins(server, cluster, tmp_path):
    """When a worker is killed and another joins late, all 5,000 files come, each once."""
    folder, plans = tmp_path / "new", []
    with Batch(downloads(server, folder), executor=cluster.client.get_executor()) as batch:
        for plan in batch():
            plans.append(plan)
            if len(plans) == COUNT // 4:
                cluster.workers[0].send_signal(signal.SIGKILL)
            if len(plans) == COUNT // 2:
                cluster.add_worker()
    # The killed worker may have left staging files, which no process knows of any more.
    for path in folder.glob(".download-*"):
        path.unlink()
    check(plans, folder)


def test_example(server, cluster, tmp_path):
    """The example of the documentation brings its files, and returns what failed."""
    spec = importlib.util.spec_from_file_location("example", ROOT / "docs/examples/dask_sync.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    address = cluster.client.scheduler.address
    names = [*map(str, range(20)), "missing"]
    (failed,) = example.sync(address, server.url(""), names, str(tmp_path / "new"))
    assert "missing" in failed
    assert len(os.listdir(tmp_path / "new")) == 20


def test_shutdown(server, cluster, tmp_path):
    """`shutdown()` in the middle stops the workers within seconds, and leaves no partial file."""
    folder = tmp_path / "new"
    with ThreadPoolExecutor(1) as pool:
        batch = Batch(downloads(server, folder), executor=cluster.client.get_executor())
        plans = batch()
        first = [next(plans) for _ in range(200)]
        rest = pool.submit(list, plans)
        began = time.monotonic()
        batch.shutdown()
        assert time.monotonic() - began < 15
        everything = [*first, *rest.result(SECONDS)]
    assert len({plan.download.url for plan in everything}) == len(everything)
    failed = [plan for plan in everything if plan.error is not None]
    assert all("shut down" in plan.error.reason for plan in failed)
    assert not cluster.client.processing() or not any(cluster.client.processing().values())
    assert sorted(os.listdir(folder)) == sorted(
        Path(plan.download.writer.path).name for plan in everything if plan.error is None
    )


def test_a_download_that_kills(cluster, tmp_path):
    """A download that kills two workers fails. The others of its chunk come."""
    for _ in range(4):
        cluster.add_worker()
    cluster.client.wait_for_workers(6, timeout=SECONDS)
    folder = tmp_path / "new"
    some = [Remote(f"test://a/bytes/{number}", folder / str(number)) for number in range(100)]
    some[50] = Remote("test://a/kill", folder / "50")
    with Batch(some, executor=cluster.client.get_executor()) as batch:
        plans = list(batch())
    failed = [plan for plan in plans if plan.error is not None]
    assert [plan.download for plan in failed] == [some[50]]
    assert isinstance(failed[0].error, DownloadFailed)
    assert len(plans) == 100


def test_no_class_at_the_worker(cluster, tmp_path):
    """What a worker can't import fails alone, with a ValueError that says so."""
    cls = type("Elsewhere", (Remote,), {"__module__": "__main__", "__qualname__": "Elsewhere"})
    sys.modules["__main__"].Elsewhere = cls
    try:
        some = [cls("test://a/bytes/1", tmp_path / "1"), Remote("test://a/bytes/2", tmp_path / "2")]
        with Batch(some, executor=cluster.client.get_executor()) as batch:
            outcome = {plan.download: plan.error for plan in batch()}
    finally:
        del sys.modules["__main__"].Elsewhere
    assert isinstance(outcome[some[0]], ValueError)
    assert "Elsewhere" in str(outcome[some[0]])
    assert outcome[some[1]] is None


def test_the_client_is_closed(server, cluster, tmp_path):
    """When the executor is shut down in the middle, the rest fails with one reason, and it ends."""
    executor = cluster.client.get_executor()
    plans = []
    with Batch(downloads(server, tmp_path / "new"), executor=executor) as batch:
        for plan in batch():
            plans.append(plan)
            if len(plans) == 100:
                executor.shutdown(wait=False)
    reasons = {plan.error.reason for plan in plans if plan.error is not None}
    assert reasons == {"the executor was shut down"}
