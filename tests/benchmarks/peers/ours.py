"""This library."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path

from benchmarks.job import Job
from benchmarks.usage import cpu_of, status
from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    Download,
    DownloadMonitor,
    FileWriter,
    HttpDownload,
    SizeValidation,
)

# The digests of pulpcore's Artifact.
FOUR = ("sha512", "sha384", "sha256", "sha224")


def downloads(job: Job, *, digest: bool = True) -> Iterator[Download]:
    """Make the downloads of a job."""
    for file in job.files:
        download = HttpDownload(job.url(file), FileWriter(str(job.target / file.name)))
        download.validations.append(SizeValidation(file.size))
        if digest:
            download.validations.append(DigestValidation("sha256", file.sha256))
        yield download


def run(job: Job) -> None:
    """Do a job as documented."""
    with Batch(downloads(job), concurrent=job.threads) as batch:
        for plan in batch():
            plan.result()


def pipelined(job: Job) -> None:
    """Do a job with up to eight requests at once on each connection."""
    with Batch(downloads(job), concurrent=job.threads, pipeline=8) as batch:
        for plan in batch():
            plan.result()


def transfer(job: Job) -> None:
    """Do a job without digests."""
    with Batch(downloads(job, digest=False), concurrent=job.threads) as batch:
        for plan in batch():
            plan.result()


def in_parts(job: Job) -> None:
    """Do a job without digests, each file over up to four connections."""
    made = [
        HttpDownload(job.url(file), FileWriter(str(job.target / file.name)), parts=4)
        for file in job.files
    ]
    with Batch(made, concurrent=job.threads) as batch:
        for plan in batch():
            plan.result()


def removed(job: Job) -> None:
    """Do a job and remove each file as soon as it is complete."""
    with Batch(downloads(job), concurrent=job.threads) as batch:
        for plan in batch():
            (job.target / plan.result().writer.path).unlink()


def monitored(job: Job, *, digest: bool = False) -> None:
    """Do a job with four digests, of which the caller checks one."""

    def generate() -> Iterator[Download]:
        for file, download in zip(job.files, downloads(job, digest=digest), strict=True):
            download.attachment = file, DownloadMonitor(download, algorithms=FOUR)
            yield download

    with Batch(generate(), concurrent=job.threads) as batch:
        for plan in batch():
            file, monitor = plan.result().attachment
            facts = monitor.facts()
            file.check(facts["size"], facts["sha256"])


def monitored_and_validated(job: Job) -> None:
    """Do a job with four digests and a validation, which computes one more."""
    monitored(job, digest=True)


def two_processes(job: Job) -> None:
    """Do a job in two processes, each with half of the files and threads."""
    halves = [
        replace(job, files=job.files[number::2], threads=max(job.threads // 2, 1))
        for number in range(2)
    ]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(run, halves))


@contextlib.contextmanager
def _processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of processes, and wait until they have imported this library."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(number, mp_context=context) as pool:
        # Each takes one, because none has ended before the last one has begun.
        list(pool.map(time.sleep, [0.2] * number))
        yield pool


def _by_processes(number: int, source: Iterable[Download], concurrent: int) -> dict[str, float]:
    """Run downloads on processes. Return seconds without the start of the processes, and CPU."""
    with _processes(number) as pool:
        pids = [child.pid for child in active_children()]
        before = sum(map(cpu_of, pids))
        began, own, loop = time.perf_counter(), time.process_time(), time.thread_time()
        with Batch(source, concurrent=concurrent, executor=pool, pipeline=1) as batch:
            for plan in batch():
                plan.result()
        seconds, own = time.perf_counter() - began, time.process_time() - own
        loop = time.thread_time() - loop
        # The kernel counts in hundredths of a second.
        used = max(sum(map(cpu_of, pids)) - before, 0.01)
    return {
        "seconds": seconds,
        "caller": own,
        "chunks": own - loop,
        "workers": used,
        "cpu": own + used,
    }


def processes(job: Job) -> dict[str, float]:
    """Do a job by a batch on two processes, each with half of the threads."""
    return _by_processes(2, downloads(job), max(job.threads // 2, 1))


def one_process(job: Job) -> dict[str, float]:
    """Do a job by a batch on one other process."""
    return _by_processes(1, downloads(job), job.threads)


def four_processes(job: Job) -> dict[str, float]:
    """Do a job by a batch on four processes, each with all of the threads."""
    return _by_processes(4, downloads(job), job.threads)


def alone(job: Job) -> None:
    """Do a job without pipelining."""
    with Batch(downloads(job), concurrent=job.threads, pipeline=1) as batch:
        for plan in batch():
            plan.result()


def nothing_by_processes(job: Job) -> dict[str, float]:
    """Run downloads that do nothing on two processes, and watch this process."""
    memory = []

    def source() -> Iterator[Download]:
        for number in range(job.count):
            if number in (job.count // 10, job.count // 5):
                # The peak since the last time, and a new one (proc(5), clear_refs).
                memory.append(status("VmHWM"))
                Path("/proc/self/clear_refs").write_text("5")
            yield Nop()

    found = _by_processes(2, source(), job.threads)
    growth = max(status("VmHWM") - memory[-1], 0)
    return {**found, "growth": growth}


class Nop(Download):
    """A download that does nothing."""

    def __init__(self) -> None:
        super().__init__("", None)

    def _send(self) -> None:
        pass

    def __call__(self) -> None:
        """Do nothing."""


def nothing(job: Job) -> None:
    """Run downloads that do nothing."""
    with Batch((Nop() for _ in range(job.count)), concurrent=job.threads) as batch:
        for plan in batch():
            plan.result()
