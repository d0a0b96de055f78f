"""Tests of batches on executors: threads of the caller's, and worker processes."""

import asyncio
import contextlib
import hashlib
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from executors import Remote, die_in_reply
from servers.files import CutAfter, File
from stubs import Blocking, Nop, Stub

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    FileDownload,
    HttpDownload,
    NotFound,
    SizeValidation,
)
from pulpcore.plugin.download.futures.pool import chunks
from pulpcore.plugin.download.futures.pool.executors import Processes, Renewed
from pulpcore.plugin.download.futures.progress import ProgressMonitor

SECONDS = 30
BODY = b"content of a file " * 200

# Python 3.12 and later warn of forking with threads, which is what the fork method does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def forkserver(workers=2):
    """Make a pool of processes."""
    return ProcessPoolExecutor(workers, mp_context=get_context("forkserver"))


def loky():
    """Make a pool of loky's, if it is installed."""
    library = pytest.importorskip("loky")
    return library.ProcessPoolExecutor(2)


POOLS = {
    "fork": lambda: ProcessPoolExecutor(2, mp_context=get_context("fork")),
    "spawn": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    "forkserver": forkserver,
    "loky": loky,
    "threads": lambda: ThreadPoolExecutor(2),
}


def checked(server, tmp_path, number):
    """Make a download with validations."""
    download = HttpDownload(server.url(f"/{number}"), tmp_path / "new" / str(number))
    download.validations.append(SizeValidation(len(BODY)))
    download.validations.append(DigestValidation("sha256", hashlib.sha256(BODY).hexdigest()))
    download.attachment = number
    return download


@pytest.mark.parametrize("pool", POOLS)
def test_files(pool, file_server, tmp_path):
    """With each executor every file is downloaded once, and the download has its state."""
    files = {f"/{number}": File(BODY, etag='"v1"') for number in range(200)}
    progress, told = ProgressMonitor(), []
    with file_server(files) as server, POOLS[pool]() as executor:
        server.faults = lambda number, request: CutAfter(99) if number % 50 == 7 else None
        downloads = [checked(server, tmp_path, number) for number in range(200)]
        downloads.append(HttpDownload(server.url("/missing"), tmp_path / "missing"))
        monitor = DownloadMonitor(downloads[0])
        for download in downloads:
            progress.watch(download)
        main = threading.current_thread()
        downloads[1].register(
            Event.SUCCEEDED, lambda event: told.append((event.download, threading.current_thread()))
        )
        downloads[-1].register(Event.FAILED, lambda event: told.append(type(event.error)))
        with Batch(iter(downloads), concurrent=4, executor=executor) as batch:
            plans = list(batch())
    assert sorted(plan.download.attachment or 0 for plan in plans) == sorted([*range(200), 0])
    failed = [plan for plan in plans if plan.error is not None]
    assert [type(plan.error) for plan in failed] == [NotFound]
    assert failed[0].error.download is downloads[-1]
    assert failed[0].error.facts.status == 404
    for plan in plans:
        if plan.error is None:
            download = plan.result()
            assert download.status in (200, 206)
            assert download.etag == '"v1"'
            assert download.position == len(BODY)
            assert [v.actual == v.expected for v in download.validations] == [True, True]
            with open(download.writer.path, "rb") as file:
                assert file.read() == BODY
    assert monitor.facts()["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert progress.figures == (200 * len(BODY), 200 * len(BODY))
    assert NotFound in told
    if pool != "threads":
        assert (downloads[1], main) in told
    assert sorted(os.listdir(tmp_path)) == ["new"]
    assert len(os.listdir(tmp_path / "new")) == 200


def test_several_processes(tmp_path):
    """Downloads run in the processes of the pool, and relative paths lead to the same files."""
    with forkserver() as executor:
        barrier = [Remote("test://a/pid", tmp_path / str(number)) for number in range(20)]
        with Batch(barrier, executor=executor) as batch:
            found = {Path(plan.result().writer.path).read_text() for plan in batch()}
    assert found
    assert str(os.getpid()) not in found


def test_connections_are_kept(file_server, tmp_path):
    """A worker process keeps its connections between chunks."""
    files = {f"/{number}": b"x" for number in range(100)}
    with file_server(files) as server, forkserver(1) as executor:
        downloads = [HttpDownload(server.url(path), tmp_path / path[1:]) for path in files]
        with Batch(downloads, concurrent=2, backlog=10, executor=executor) as batch:
            assert all(plan.error is None for plan in batch())
        assert server.connections <= 2


def test_shutdown(tmp_path):
    """`shutdown()` stops the workers' downloads, fails the waiting ones, and leaves no file."""
    with forkserver() as executor:
        downloads = [
            Remote(f"test://a/block/{number}", tmp_path / str(number)) for number in range(40)
        ]
        batch = Batch(downloads, executor=executor)
        plans = batch()
        reader = threading.Thread(target=lambda: seen.extend(plans))
        seen = []
        reader.start()
        end = time.monotonic() + SECONDS
        while not os.listdir(tmp_path):
            assert time.monotonic() < end
            time.sleep(0.01)
        batch.shutdown()
        reader.join(SECONDS)
        assert not reader.is_alive()
        # The executor is the caller's, and goes on.
        assert executor.submit(os.getpid).result(SECONDS) != os.getpid()
    assert len(seen) == 40
    assert all("shut down" in plan.error.reason for plan in seen)
    assert os.listdir(tmp_path) == []


def test_a_worker_dies(tmp_path):
    """When a worker of a pool dies, the rest fails with one reason, and the iteration ends."""

    def endless():
        yield Remote("test://a/kill", tmp_path / "dead")
        while True:
            yield Nop()

    with forkserver() as executor:
        with Batch(endless(), executor=executor) as batch:
            plans = list(batch())
        reasons = {plan.error.reason for plan in plans if plan.error is not None}
    assert len(reasons) == 1
    assert "a worker process died, which broke the executor" in reasons.pop()
    assert [plan.error is None for plan in plans if "kill" in plan.download.url] == [False]


def test_shut_down_before():
    """An executor that was shut down fails what remains, and the iteration ends."""
    for executor in (forkserver(), ThreadPoolExecutor(1)):
        executor.shutdown()
        with Batch((Nop() for _ in range(3)), executor=executor) as batch:
            plans = list(batch())
        assert {plan.error.reason for plan in plans} == {"the executor was shut down"}


def test_a_pool_made_anew(tmp_path):
    """A renewed pool tries each download of a dead worker once more, one by one."""
    with Renewed(2) as executor:
        downloads = [
            Remote(f"test://a/bytes/{number}", tmp_path / str(number)) for number in range(60)
        ]
        downloads[30] = Remote("test://a/kill", tmp_path / "30")
        with Batch(downloads, executor=executor) as batch:
            plans = list(batch())
        failed = [plan for plan in plans if plan.error is not None]
    assert [plan.download.url for plan in failed] == ["test://a/kill"]
    assert isinstance(failed[0].error, DownloadFailed)
    assert "two workers failed at it" in failed[0].error.reason
    assert len(plans) == 60
    assert len(list(tmp_path.iterdir())) == 59 + len(list(tmp_path.glob(".download-*")))


class BreaksLate(ProcessPoolExecutor):
    """A pool that breaks while it gets a chunk: it forgets the future, and waits for a process."""

    def submit(self, function, /, *arguments):
        """Start a process, and break."""
        super().submit(time.sleep, 600)
        self._broken = "a process was killed"
        return Future()


def test_breaks_while_it_gets_a_chunk():
    """A pool that breaks while it gets a chunk hangs neither the batch nor its own shutdown."""
    with BreaksLate(1, mp_context=get_context("forkserver")) as executor:
        with Batch([Nop()], executor=executor) as batch:
            [plan] = batch()
        assert "a worker process died" in plan.error.reason


def test_killed_while_the_pool_shuts_down(tmp_path):
    """A worker that is killed with the lock of the pool's queue doesn't hang the shutdown."""
    pipes = [tmp_path / "1", tmp_path / "2"]
    with Renewed(2) as executor, contextlib.ExitStack() as ends:
        for pipe in pipes:
            os.mkfifo(pipe)
        futures = [executor.submit(Path.read_bytes, pipe) for pipe in pipes]
        for pipe in pipes:
            # Returns when a worker reads from the pipe.
            ends.enter_context(pipe.open("wb"))
        # Both workers are busy, so the lock is free. The killed one seems to hold it.
        assert executor._pool._call_queue._rlock.acquire(timeout=SECONDS)
        ends.close()
        assert [future.result(SECONDS) for future in futures] == [b"", b""]
        one, other = executor._pool._processes.values()
        ender = threading.Thread(target=executor.shutdown)
        ender.start()
        one.kill()
        ender.join(SECONDS)
        assert not ender.is_alive()
        assert not other.is_alive()


@pytest.mark.parametrize("renewed", [True, False])
def test_killed_before_a_full_queue(renewed, tmp_path):
    """A pool whose only worker is killed ends, although its queue is full."""
    with Renewed(1) if renewed else forkserver(1) as executor:
        pool = executor if renewed else Processes(executor)
        os.mkfifo(tmp_path / "pipe")
        future = pool.submit(Path.read_bytes, tmp_path / "pipe")
        with (tmp_path / "pipe").open("wb"):
            others = [pool.submit(len, bytes(1 << 20)) for _ in range(2)]
            [process] = (executor._pool if renewed else executor)._processes.values()
            process.kill()
            errors = [future.exception(SECONDS) for future in (future, *others)]
        assert [pool.is_broken(error) for error in errors] == [not renewed] * 3
        ender = threading.Thread(target=executor.shutdown)
        ender.start()
        ender.join(SECONDS)
        assert not ender.is_alive()


@pytest.mark.parametrize("pool", [lambda: Renewed(2), forkserver, loky])
def test_killed_while_it_writes_its_reply(pool, tmp_path, monkeypatch):
    """A worker that is killed with half of its reply written hangs no batch and no pool."""
    monkeypatch.setattr(chunks, "_LOOK", 0.1)
    downloads = [
        Remote("test://a/bytes/1", tmp_path / "1"),
        Remote("test://a/half", tmp_path / "2"),
    ]
    with pool() as executor:
        renewed = isinstance(executor, Renewed)
        with Batch(downloads, executor=executor) as batch:
            plans = list(batch())
        failed = [plan for plan in plans if plan.error is not None]
        assert len(plans) == 2
        assert downloads[1] in [plan.download for plan in failed]
        if renewed:
            assert len(failed) == 1
        for plan in failed:
            reason = "two workers failed at it" if renewed else "a worker process died"
            assert reason in plan.error.reason


def test_shutdown_after_half_a_reply():
    """The program's pool ends, too, if it is shut down while it waits for the rest of a reply."""
    with Renewed(2) as executor:
        future = executor.submit(die_in_reply)
        # Another worker lives, so the pipe stays open.
        executor.submit(time.sleep, 0)
        [*processes] = executor._pool._processes.values()
        end = time.monotonic() + SECONDS
        while all(process.is_alive() for process in processes):
            assert time.monotonic() < end
            time.sleep(0.01)
        ender = threading.Thread(target=executor.shutdown, daemon=True)
        ender.start()
        ender.join(SECONDS)
        assert not ender.is_alive()
        assert future.exception(0) is not None


def test_killed_at_random(file_server, tmp_path):
    """While workers are killed at random, a renewed pool downloads every file, once."""
    files = {f"/{number}": BODY for number in range(300)}
    with file_server(files) as server, Renewed(2) as executor:
        downloads = [HttpDownload(server.url(path), tmp_path / path[1:]) for path in files]
        for place in (250, 100, 0):
            downloads.insert(place, Remote(f"test://pid/pid/{place}", tmp_path / f"pid{place}"))
        seen = []
        with Batch(downloads, executor=executor) as batch:
            for plan in batch():
                seen.append(plan)
                if plan.result().url.startswith("test:"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(Path(plan.download.writer.path).read_text()), signal.SIGKILL)
    assert len({plan.download.url for plan in seen}) == len(seen) == 303
    assert all((tmp_path / path[1:]).read_bytes() == BODY for path in files)


def test_async(file_server, tmp_path):
    """`async for` works on an executor with worker processes."""
    files = {f"/{number}": BODY for number in range(20)}

    async def main():
        downloads = [HttpDownload(server.url(path), tmp_path / path[1:]) for path in files]
        async with Batch(downloads, executor=executor) as batch:
            return [plan.result() async for plan in batch()]

    with file_server(files) as server, forkserver() as executor:
        assert len(asyncio.run(main())) == 20


def test_async_on_the_caller_s_threads():
    """`async for` works on a ThreadPoolExecutor."""

    async def main():
        async with Batch([Stub() for _ in range(20)], executor=executor) as batch:
            return [plan.result() async for plan in batch()]

    with ThreadPoolExecutor(2) as executor:
        assert len(asyncio.run(main())) == 20


def test_file_downloads(tmp_path):
    """A FileDownload that failed in a worker process reports its errno in the parent."""
    (tmp_path / "a").write_bytes(BODY)
    good = FileDownload(f"file://{tmp_path}/a", tmp_path / "b")
    bad = FileDownload(f"file://{tmp_path}/c", tmp_path / "d")
    with forkserver(1) as executor, Batch([good, bad], executor=executor) as batch:
        outcome = {plan.download: plan.error for plan in batch()}
    assert outcome[good] is None
    assert isinstance(outcome[bad], NotFound)
    assert (good.error, bad.error) == (0, 2)


def test_the_caller_s_threads_run_it():
    """The threads of the caller's executor run the downloads, `concurrent` of them at most."""
    names, running, most = set(), [], []

    def send(download):
        names.add(threading.current_thread().name)
        running.append(download)
        most.append(len(running))
        time.sleep(0.001)
        running.remove(download)

    with ThreadPoolExecutor(8, "mine") as executor:
        with Batch([Stub(send) for _ in range(100)], concurrent=3, executor=executor) as batch:
            assert all(plan.error is None for plan in batch())
        assert executor.submit(int).result() == 0
    assert all(name.startswith("mine") for name in names)
    assert max(most) <= 3


def test_busy_threads():
    """A batch can be shut down while its executor has not yet run anything of it."""
    held = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(held.wait)
        batch = Batch([Stub(), Stub()], executor=executor)
        plans, seen = batch(), []
        reader = threading.Thread(target=lambda: seen.extend(plans))
        reader.start()
        batch.shutdown()
        reader.join(SECONDS)
        held.set()
    assert not reader.is_alive()
    assert all("shut down" in plan.error.reason for plan in seen)


def test_shutdown_with_the_caller_s_threads():
    """`shutdown()` stops downloads in the threads of the caller's executor."""
    with ThreadPoolExecutor(2) as executor:
        downloads = [Blocking() for _ in range(4)]
        batch = Batch(downloads, concurrent=2, executor=executor)
        plans, seen = batch(), []
        reader = threading.Thread(target=lambda: seen.extend(plans))
        reader.start()
        assert downloads[0].running.wait(SECONDS)
        batch.shutdown()
        reader.join(SECONDS)
    assert len(seen) == 4
    assert all(isinstance(plan.error, DownloadFailed) for plan in seen)


def test_refused():
    """An object that isn't a supported executor is refused in one sentence."""
    with pytest.raises(TypeError, match=r"^executor: must be a concurrent\.futures\.Executor"):
        Batch([], executor=4)

    class InterpreterPoolExecutor(ThreadPoolExecutor):
        pass

    with (
        InterpreterPoolExecutor(1) as executor,
        pytest.raises(ValueError, match=r"^executor: an InterpreterPoolExecutor isn't supported"),
    ):
        Batch([], executor=executor)


def test_no_context():
    """A context can't be shared with worker processes, so it is refused by name."""
    with forkserver() as executor, pytest.raises(ValueError, match=r"^context: can't be shared"):
        Batch([], context=object(), executor=executor)


@pytest.mark.usefixtures("from_terminal")
def test_interrupted(tmp_path):
    """After Ctrl-C in the loop, leaving the `with` block ends the downloads in the workers."""
    downloads = [Remote(f"test://a/block/{number}", tmp_path / str(number)) for number in range(9)]
    with forkserver() as executor:
        timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), Batch(downloads, executor=executor) as batch:
            list(batch())
        timer.join()
    assert os.listdir(tmp_path) == []
