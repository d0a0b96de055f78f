"""Counts the calls that a download makes, which a machine's speed and load don't change.

Usage: ``python -m benchmarks.counts``: prints each count, what it is by its fixed peer, and the
limit (counts.toml). The exit status is 1 if one is above its limit.

Counted are the calls of functions, Python's and C's, of all threads that come with the work, and
(where there is strace) the system calls for files and sockets, but those that keep the interpreter.
Each is the least of some runs: what comes by chance, such as a thread that looks once more, only
adds.
"""

# ruff: noqa: T201 - a script: it prints
from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import requests

from benchmarks import content, server
from benchmarks.job import File, Job
from benchmarks.peers.ours import Nop, downloads
from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    Download,
    FileWriter,
    SizeValidation,
)
from pulpcore.plugin.download.futures.context import Context

LIMITS = Path(__file__).with_suffix(".toml")
SIZE = 4096
BUFFER = bytes(64 * 1024)
TRIES = 5
BUFFERS = 100
NOPS = 1000
RUNS = 5
# Enough runs to make random differences negligible.
TRACED = 30
# The sum, and a call without I/O.
UNCOUNTED = ("total", "getsockopt")
TRACE = ("strace", "-f", "-c", "-e", "trace=%file,%desc,%network", "-U", "calls,name")


@dataclass(frozen=True)
class Count:
    """A count, and its limit.

    Attributes:
        name: Its name in counts.toml.
        what: A description of what was counted.
        calls: The number of calls.
        peer: The number of calls of the fixed peer for the same work; 1 without such a peer.
        limit: The greatest allowed ratio to the peer.
    """

    name: str
    what: str
    calls: float
    peer: float
    limit: float

    @property
    def ratio(self) -> float:
        """The ratio of the count to that of the peer."""
        return self.calls / self.peer


class Counter:
    """Counts function calls within the ``with``, of this thread and of threads it starts."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.calls = 0

    def __enter__(self) -> Counter:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        self.calls = next(self._numbers)

    def _profile(self, _: FrameType, event: str, __: Any) -> None:
        if event in ("call", "c_call"):
            # Counting by a function of C needs no lock.
            next(self._numbers)


def count(work: Callable[[], object]) -> int:
    """Return the number of calls that a work makes, the least of some runs."""
    found = []
    for _ in range(RUNS):
        with Counter() as counter:
            work()
        found.append(counter.calls)
    return min(found)


@contextlib.contextmanager
def job(folder: Path) -> Iterator[Job]:
    """Make a job with one small file, and start a server for it."""
    root, target = folder / "root", folder / "target"
    root.mkdir()
    target.mkdir()
    files = content.make(root, SIZE, 1)
    with server.embedded(root) as serving:
        yield Job(serving.base, files, target, threads=1, count=0)


@contextlib.contextmanager
def plain(work: Job) -> Iterator[Callable[[], object]]:
    """Run the fixed peer: requests sends a request that was prepared once.

    It is counted beside ours in the same run, so that another version of Python, requests or
    urllib3 changes both.
    """
    (file,) = work.files
    with requests.Session() as session:
        prepared = session.prepare_request(requests.Request("GET", work.url(file)))

        def send() -> None:
            reply = session.send(
                prepared.copy(), proxies={}, verify=True, cert=None, stream=True, timeout=(10, 30)
            )
            (work.target / file.name).write_bytes(reply.content)

        yield send


@contextlib.contextmanager
def ours(work: Job) -> Iterator[Callable[[], object]]:
    """Run a download with size and digest, in a shared context."""
    context = Context()

    def run() -> None:
        (download,) = downloads(work)
        download.context = context
        download()

    yield run
    context.close()


SENDERS = {"ours": ours, "plain": plain}


def calls_per_file(work: Job) -> dict[str, int]:
    """Count the function calls for a small file."""
    found = {}
    for name, sender in SENDERS.items():
        with sender(work) as run:
            # The first download makes the connection.
            run()
            found[name] = count(run)
    return found


class Buffers(Download):
    """A download of buffers from memory."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__("", FileWriter(str(path)))
        self._number = number

    def _send(self) -> None:
        for _ in range(self._number):
            self._write(BUFFER)


def calls_per_buffer(folder: Path) -> float:
    """Count the function calls for each further buffer, with size and digest.

    A thread hashes beside the transfer, and makes more calls the more often it catches up and has
    to be woken. The least of several counts leaves that out.
    """
    digests = {
        number: hashlib.sha256(BUFFER * number).hexdigest() for number in (BUFFERS, 2 * BUFFERS)
    }

    def run(number: int) -> None:
        download = Buffers(folder / "buffers", number)
        download.validations.append(SizeValidation(number * len(BUFFER)))
        download.validations.append(DigestValidation("sha256", digests[number]))
        download()

    few, many = (
        min(count(functools.partial(run, number)) for _ in range(TRIES)) for number in digests
    )
    return (many - few) / BUFFERS


def calls_per_nop() -> float:
    """Count the function calls for an empty download of a batch."""

    def run() -> None:
        with Batch(Nop() for _ in range(NOPS)) as batch:
            for plan in batch():
                plan.result()

    return count(run) / NOPS


def system_calls_per_file(work: Job) -> dict[str, float]:
    """Count the system calls for a small file with strace."""
    found = {}
    for name in SENDERS:
        few, many = (_traced(name, work, number) for number in (TRACED, 2 * TRACED))
        found[name] = (many - few) / TRACED
    return found


def can_trace() -> bool:
    """Return whether strace is installed and permitted."""
    return (
        shutil.which("strace") is not None
        and subprocess.run([*TRACE, "true"], capture_output=True, check=False).returncode == 0
    )


def _traced(name: str, work: Job, number: int) -> int:
    with tempfile.NamedTemporaryFile("r") as summary:
        subprocess.run(
            [
                *TRACE,
                f"--output={summary.name}",
                sys.executable,
                "-c",
                "from benchmarks.counts import repeat; repeat()",
                name,
                work.url(work.files[0]),
                work.files[0].sha256,
                str(work.target),
                str(number),
            ],
            check=True,
            env=server.environment(),
        )
        counted = re.findall(r"^\s*(\d+) (\w+)$", summary.read(), re.MULTILINE)
        return sum(int(calls) for calls, name in counted if name not in UNCOUNTED)


def repeat() -> None:
    """Download the same file repeatedly, while strace counts."""
    name, url, sha256, target, number = sys.argv[1:]
    base, path = re.fullmatch(r"(http://[^/]+)(/.*)", url).groups()
    work = Job(base, [File(path, SIZE, sha256)], Path(target), threads=1, count=0)
    with SENDERS[name](work) as run:
        for _ in range(int(number)):
            run()


def limits() -> dict[str, float]:
    """Return the limits by name."""
    return tomllib.loads(LIMITS.read_text())


def measure(system_calls: bool) -> Iterator[Count]:
    """Count everything.

    Args:
        system_calls: Count them too.
    """
    most = limits()
    with tempfile.TemporaryDirectory() as name, job(Path(name)) as work:
        calls = calls_per_file(work)
        found = [
            Count("calls_per_file", "calls for a file of 4 KiB", calls["ours"], calls["plain"], 0),
            Count("calls_per_buffer", "calls for a buffer", calls_per_buffer(Path(name)), 1, 0),
            Count("calls_per_nop", "calls for nothing, by a batch", calls_per_nop(), 1, 0),
        ]
        if system_calls:
            calls = system_calls_per_file(work)
            what = "system calls for a file of 4 KiB"
            found.append(Count("system_calls_per_file", what, calls["ours"], calls["plain"], 0))
    for each in found:
        yield replace(each, limit=most[each.name])


def main() -> None:
    """Print the counts."""
    print(f"{'':<34} {'count':>7} {'peer':>7} {'ratio':>7} {'limit':>7}")
    is_above = False
    for each in measure(can_trace()):
        is_above |= each.ratio > each.limit
        print(
            f"{each.what:<34} {each.calls:>7.1f} {each.peer:>7.1f} {each.ratio:>7.2f} "
            f"{each.limit:>7.2f}{'  above' if each.ratio > each.limit else ''}"
        )
    sys.exit(is_above)


if __name__ == "__main__":
    main()
