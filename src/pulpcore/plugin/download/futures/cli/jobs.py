"""Runs the downloads of both commands, and reports what becomes of each file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from pulpcore.plugin.download.futures import Download, DownloadMonitor, FileWriter

from .manifest import Refused
from .options import Options
from .output import Output, Result, Status
from .progress import Progress
from .session import Session
from .summary import Summary
from .transfer import transfer

THERE = "already there"

UNNOTED = 16
"""How many files may be finished and not yet in the journal of --session, which kill -9 loses."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file that is to be downloaded.

    Attributes:
        path (str): What messages and JSON call it.
        url (str): The URL.
        size (int | None): The expected size (bytes), if known.
        sha256 (str | None): The expected digest (hex), if known.
        build (Callable[[], Download]): Makes the download. It may raise Refused.
        target (str | None): The path of the file for the journal of --session; None for no file.
    """

    path: str
    url: str
    size: int | None
    sha256: str | None
    build: Callable[[], Download]
    target: str | None = None

    def result(self, status: Status, reason: str | None = None, **more: object) -> Result:
        """Return how the download of the file ended.

        Args:
            status: The outcome.
            reason: Why.
            more: Other attributes of the result, which replace those of the job.
        """
        known = {"size": self.size, "sha256": self.sha256} | more
        return Result(self.path, self.url, status=status, reason=reason, **known)  # type: ignore[arg-type]


Jobs = Iterable[Job | Result]
"""The files of a run. A result in the place of a job is that of an entry that can't be used."""


class Run:
    """One run of a command.

    Attributes:
        summary (Summary): What became of the files.
        last (Result | None): The last result.
    """

    def __init__(
        self, options: Options, output: Output, session: Session | None = None, hashes: bool = False
    ) -> None:
        """Begin.

        Args:
            options: The options.
            output: Reports to the user.
            session: What earlier runs have finished.
            hashes: Compute the digest of each file, for its result.
        """
        self.summary = Summary()
        self.last: Result | None = None
        self._options = options
        self._output = output
        self._session = session
        self._hashes = hashes or options.as_json
        self._taken = 0
        self._running: dict[int, Job] = {}

    def run(self, jobs: Jobs, progress: Progress) -> None:
        """Download the files.

        An interruption reports those that were running, and those that never began.

        Args:
            jobs: The files. It is iterated a second time after an interruption, unless it is an
                iterator.
            progress: Shows the progress.
        """
        with progress:
            try:
                transfer(
                    self._downloads(jobs, progress),
                    self._options.concurrent,
                    lambda download, failure: self._done(download, failure, progress),
                    self._options.limits,
                    self._options.processes,
                    None if self._session is None else UNNOTED,
                )
            except KeyboardInterrupt:
                self.interrupt(jobs)
                raise

    def interrupt(self, jobs: Jobs) -> None:
        """Report the files that were running, and for JSON also those that never began.

        Args:
            jobs: All files. If it is an iterator, the others are unknown.
        """
        for job in list(self._running.values()):
            self.report(job.result("interrupted", "it was interrupted"))
        if not self._options.as_json or isinstance(jobs, Iterator):
            return
        for item in islice(jobs, self._taken, None):
            if isinstance(item, Job):
                self.report(item.result("interrupted", "it never began"))
            else:
                self.report(item)

    def report(self, result: Result, fetched: int = 0) -> None:
        """Report and count the result of a file.

        Args:
            result: The result.
            fetched: The bytes that were fetched for it.
        """
        self.summary.count(result.status, fetched)
        self.last = result
        self._output.result(result)

    def _downloads(self, jobs: Jobs, progress: Progress) -> Iterator[Download]:
        for item in jobs:
            download = self._prepare(item)
            if download is None:
                self._taken += 1
                progress.count_file()
                continue
            progress.watch(download)
            self._running[id(download)] = download.attachment[0]
            self._taken += 1
            yield download

    def _prepare(self, item: Job | Result) -> Download | None:
        if isinstance(item, Result):
            self.report(item)
            return None
        # Check this before building the download: a million files may be finished already.
        if self._is_noted(item):
            self.report(item.result("skipped", THERE))
            return None
        try:
            download = item.build()
        except Refused as error:
            self.report(item.result("failed", str(error)))
            return None
        writer = download.writer
        if isinstance(writer, FileWriter):
            writer.resume = self._options.keeps
            # Or a power cut could leave a note on a file that the disk doesn't have.
            writer.durable = self._session is not None
        download.skip_existing = download.skip_existing or self._options.keeps
        is_unknown = self._hashes and item.sha256 is None
        monitor = DownloadMonitor(download, ["sha256"]) if is_unknown else None
        download.attachment = item, monitor
        return download

    def _is_noted(self, job: Job) -> bool:
        """Return whether an earlier run has finished a file."""
        if self._session is None or job.target is None:
            return False
        return self._session.has(job.target, job.url)

    def _done(self, download: Download, failure: str | None, progress: Progress) -> None:
        job, monitor = download.attachment
        self._running.pop(id(download), None)
        status = getattr(download, "status", 0) or None
        if failure is not None:
            self.report(job.result("failed", failure, http_status=status))
        elif download.unchanged:
            self.report(job.result("skipped", THERE))
        else:
            size = download.position
            sha256 = job.sha256 if monitor is None else str(monitor.facts()["sha256"])
            source = getattr(download, "source", None) or job.url
            more = {"size": size, "sha256": sha256, "http_status": status, "source": source}
            self.report(job.result("ok", **more), size)
        if failure is None and self._session is not None and job.target is not None:
            try:
                self._session.add(job.target, job.url)
            except OSError as error:
                self.summary.problem = True
                self._output.complain(f"failed: --session can't be written: {error.strerror}")
        progress.count_file()
