#!/usr/bin/env python3
"""Downloads thousands of files from a server with faults of all kinds, and counts what went wrong.

The server is a process of its own. Which request of which file it fails, and how, depends on the
seed alone. A file fails three times at most, so each one can be had by whoever tries again.

    python tests/soak/soak.py
    python tests/soak/soak.py --files 600 --threads 8 --faults 0.2 --seed 7

The exit status is 0 if nothing was lost, wrong, partial or left over, else 1.
"""

# ruff: noqa: T201 - a script: it prints
from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS.parent / "src")]

from servers.files import (  # noqa: E402
    CutAfter,
    Fault,
    File,
    FileServer,
    ResetAfter,
    StallAfter,
    Status,
)
from servers.message import Request  # noqa: E402
from urllib3.util import Retry  # noqa: E402

from pulpcore.plugin.download.futures import (  # noqa: E402
    Batch,
    DigestValidation,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Timeout,
)
from pulpcore.plugin.download.futures.engine.backoff import TRANSIENT  # noqa: E402

# A busy machine may be slow, too.
READ_TIMEOUT = 2.0
OLD = b"the old file"


class Plot:
    """The content and faults of each file, as a function of the seed and its number.

    Args:
        seed: Any number.
        faults: Which part of the files has faults, from 0 to 1.
    """

    def __init__(self, seed: int, faults: float):
        self._seed = seed
        self._faults = faults

    def _random(self, number: int, what: str) -> random.Random:
        return random.Random(f"{self._seed}/{number}/{what}")

    def content(self, number: int, version: int) -> bytes:
        """Return the content of a file. Most files are small."""
        chance = self._random(number, f"content {version}")
        size = chance.choice([0, 1, 700, 4096, 4096, 9000, 9000, 30_000, 70_000, 300_000])
        return chance.randbytes(size)

    def changes(self, number: int) -> bool:
        """Return whether the file changes on the server after the first fault."""
        return self._random(number, "changes").random() < 0.2

    def file(self, number: int, version: int) -> File:
        """Return the file that the server has."""
        body = self.content(number, version)
        chance = self._random(number, "headers")
        tag = chance.choice([None, "", "W/"])
        etag = None if tag is None else f'{tag}"{hashlib.md5(body).hexdigest()}"'
        return File(body, etag=etag, ranges=chance.random() < 0.8)

    def fault(self, number: int, request: int) -> Fault | None:
        """Return the fault of a request for a file. Its number counts from 0 for each file."""
        chance = self._random(number, "faults")
        if chance.random() >= self._faults or request >= chance.choice([1, 1, 2, 3]):
            return None
        chance = self._random(number, f"fault {request}")
        size = chance.choice([0, 1, 1000, 4000, 8000, 50_000, 200_000])
        return chance.choice(
            [
                CutAfter(size),
                CutAfter(chance.randrange(60), whole=True),
                ResetAfter(size),
                ResetAfter(chance.randrange(60), whole=True),
                CutAfter(size),
                ResetAfter(size),
                StallAfter(size) if chance.random() < 0.3 else CutAfter(size),
                Status(chance.choice(sorted(TRANSIENT)), {"Retry-After": "0"}, b"not now"),
                Status(503, body=b"no hurry"),
                # Too long to be drained, so the connection can't be reused.
                Status(500, {"Connection": "close"}, b"x" * 100_000),
            ]
        )


class Shelf(Mapping[str, File]):
    """The files of the server, made on demand."""

    def __init__(self, plot: Plot):
        self._plot = plot
        self._lock = threading.Lock()  # guards the counter
        self._requests: Counter[int] = Counter()

    def count(self, request: Request) -> int:
        """Count a request for a file. Return the number of earlier ones."""
        number = int(request.path[1:])
        with self._lock:
            before = self._requests[number]
            self._requests[number] += 1
        return before

    def __getitem__(self, path: str) -> File:
        number = int(path[1:])
        changed = self._requests[number] > 1 and self._plot.changes(number)
        return self._plot.file(number, int(changed))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def serve(plot: Plot) -> None:
    """Serve until the standard input ends. Print the port first and the number of faults last."""
    shelf = Shelf(plot)
    faults = 0

    def fault(_: int, request: Request) -> Fault | None:
        nonlocal faults
        found = plot.fault(int(request.path[1:]), shelf.count(request))
        faults += found is not None
        return found

    with FileServer(shelf, faults=fault, record=False) as server:
        print(server.port, flush=True)
        sys.stdin.read()
    print(faults, flush=True)


@contextlib.contextmanager
def server_process(options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """Run the server in its own process."""
    arguments = ["--serve", "--seed", str(options.seed), "--faults", str(options.faults)]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def make(plot: Plot, number: int, base: str, folder: Path) -> HttpDownload:
    """Make the download of a file. Files that change are validated by their framing only."""
    path = folder / str(number)
    if number % 5 == 0:
        path.write_bytes(OLD)
    download = HttpDownload(f"{base}/{number}", FileWriter(path, resume=number % 7 == 0))
    download.timeout = Timeout(connect=10, read=READ_TIMEOUT)
    download.retry = Retry(total=8, backoff_factor=0.02, status_forcelist=TRANSIENT)
    if not plot.changes(number):
        content = plot.content(number, 0)
        if number % 2:
            digest = hashlib.sha256(content).hexdigest()
            download.validations.append(DigestValidation("sha256", digest))
        if number % 3:
            download.validations.append(SizeValidation(len(content)))
    download.attachment = number
    return download


def judge(plot: Plot, download: HttpDownload, error: BaseException | None, found: Counter) -> None:
    """Count the problems of a finished download and remove its file."""
    path = Path(str(download.writer))
    content = path.read_bytes() if path.exists() else None
    versions = {plot.content(download.attachment, version) for version in (0, 1)}
    if not plot.changes(download.attachment):
        versions = {plot.content(download.attachment, 0)}
    if error is not None:
        found["lost"] += 1
        print(f"lost: {error}", file=sys.stderr)
        if content not in (None, OLD):
            found["wrong"] += 1
    elif content not in versions:
        found["wrong"] += 1
        print(f"wrong: {download}", file=sys.stderr)
    path.unlink(missing_ok=True)


def descriptors() -> int:
    """Return the number of open file descriptors, or 0 if it is unknown."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except FileNotFoundError:
        return 0


def soak(options: argparse.Namespace, folder: Path, base: str) -> Counter:
    """Download all files and count the problems."""
    plot = Plot(options.seed, options.faults)
    found: Counter[str] = Counter()
    threads, files = threading.active_count(), descriptors()
    downloads = (make(plot, number, base, folder) for number in range(options.files))
    ended = 0
    with Batch(downloads, concurrent=options.threads) as batch:
        for plan in batch():
            ended += 1
            judge(plot, plan.download, plan.error, found)
    found["lost"] += options.files - ended
    found["partial"] = len(list(folder.iterdir()))
    found["threads left"] = threading.active_count() - threads
    found["file descriptors left"] = descriptors() - files
    return found


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000, help="how many (%(default)s)")
    parser.add_argument("--threads", type=int, default=16, help="at once (%(default)s)")
    parser.add_argument("--faults", type=float, default=0.02, help="part of them (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="any number")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Plot(options.seed, options.faults))
        return 0
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        server_process(options) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        found = soak(options, Path(folder), base)
        seconds = time.monotonic() - began
        server.stdin.close()
        faults = int(server.stdout.readline())
    print(
        f"{options.files} files, {options.threads} threads, {faults} faults, "
        f"seed {options.seed}, {seconds:.1f} s"
    )
    kinds = ("lost", "wrong", "partial", "threads left", "file descriptors left")
    print(", ".join(f"{kind} {found[kind]}" for kind in kinds))
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
