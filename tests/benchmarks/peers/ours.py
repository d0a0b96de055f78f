"""This library."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from benchmarks.job import Job
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
