"""Records a trace of a real run on loopback, which the tests replay on the virtual clock.

Usage, in the source folder: ``PYTHONPATH=src:tests:tests/support python -m simulation.record``. It
takes half a minute, and writes ``trace.csv``: a row for each request, in the order in which they
began, with the number of the file, its host, the worker, the beginning and the length of the
request (seconds), and how it ended.
"""

import csv
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

from servers.files import CutAfter, File, FileServer, ResetAfter, Status

from pulpcore.plugin.download.futures import Batch, DownloadError, HttpDownload

TRACE = Path(__file__).with_name("trace.csv")
FIELDS = ("number", "host", "worker", "began", "seconds", "end")
WORKERS, HOSTS, FILES, RUN = 2, 4, 1200, 30
BODY = b"x" * 20_000
DELAY = 0.02
OUTAGE = (1.0, 7.0)
"""The times between which one of the hosts resets each connection (seconds)."""


class Traced(HttpDownload):
    """A download that notes its requests in a file of its worker process."""

    def _send(self):
        began, end = time.monotonic(), "good"
        try:
            super()._send()
        except DownloadError as error:
            end = "refused" if error.refused else "failed"
            raise
        finally:
            number = Path(self.writer.path).name
            host = self.url.split("/")[2]
            seconds = time.monotonic() - began
            with open(f"{os.environ['TRACE']}/{os.getpid()}", "a") as file:
                print(number, host, os.getpid(), began, seconds, end, sep=",", file=file)


def faults(is_ill):
    """Return what goes wrong with the requests of a host."""
    began = time.monotonic()

    def fault(number, _):
        time.sleep(DELAY)
        if is_ill and OUTAGE[0] <= time.monotonic() - began < OUTAGE[1]:
            return ResetAfter(0)
        return {13: CutAfter(5000), 57: Status(503)}.get(number % 100)

    return fault


def main():
    """Record a trace."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["TRACE"] = f"{folder}/trace"
        Path(folder, "trace").mkdir()
        files = {f"/{number}": File(BODY, etag='"1"') for number in range(FILES)}
        servers = [stack.enter_context(FileServer(files, record=False)) for _ in range(HOSTS)]
        context = get_context("forkserver")
        pool = stack.enter_context(ProcessPoolExecutor(WORKERS, mp_context=context))
        # So that their start isn't a part of the run.
        list(pool.map(time.sleep, [0.5] * WORKERS))
        for number, server in enumerate(servers):
            server.faults = faults(is_ill=number == 0)
        downloads = [
            Traced(servers[number // RUN % HOSTS].url(f"/{number}"), f"{folder}/{number}")
            for number in range(FILES)
        ]
        began = time.monotonic()
        with Batch(downloads, executor=pool) as batch:
            failed = sum(plan.error is not None for plan in batch())
        seconds = time.monotonic() - began
        rows = [
            row
            for path in Path(folder, "trace").iterdir()
            for row in csv.DictReader(path.open(), FIELDS)
        ]
    _write(rows, began, seconds, failed)


def _write(rows, began, seconds, failed):
    """Write the rows with small numbers, and what has come of all in the first one."""
    names = {"host": {}, "worker": {}}
    rows.sort(key=lambda row: float(row["began"]))
    for row in rows:
        for name, known in names.items():
            row[name] = known.setdefault(row[name], len(known))
        row["began"] = f"{float(row['began']) - began:.3f}"
        row["seconds"] = f"{float(row['seconds']):.4f}"
    with TRACE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerow({"number": FILES, "seconds": f"{seconds:.3f}", "end": f"{failed} lost"})
        writer.writerows(rows)


if __name__ == "__main__":
    main()
