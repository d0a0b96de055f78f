#!/usr/bin/env python3
"""Downloads thousands of files from three bad mirrors, and counts what went wrong.

One mirror sends wrong bytes of the right length, one stalls, and one has all files, but fails now
and then. The downloads have parts, limits and partial files that survive. The client is killed
twice by SIGKILL and started again. Content, lies and faults depend on the seed alone.

    python tests/soak/mirrors.py
    python tests/soak/mirrors.py --files 600 --seed 7

The exit status is 0 if nothing was lost, wrong, partial or left over, else 1.
"""

# ruff: noqa: T201 - a script: it prints
from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import random
import subprocess
import sys
import tempfile
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
    Limits,
    Mirrors,
    SizeValidation,
    Timeout,
)
from pulpcore.plugin.download.futures.engine.backoff import TRANSIENT  # noqa: E402

MIB = 1 << 20
LARGE = 17 * MIB
"""The size of a file that is fetched in parts (bytes)."""
EVERY = 500
"""One file in so many is large."""
KILLS = 2
KINDS = ("liar", "staller", "whole")


@functools.cache
def pool(seed: int) -> bytes:
    """Return the random bytes from which all files are cut."""
    return random.Random(seed).randbytes(LARGE + MIB)


@functools.lru_cache(maxsize=64)
def content(seed: int, number: int) -> bytes:
    """Return the content of a file."""
    chance = random.Random(f"{seed}/{number}")
    size = chance.choice([0, 1, 700, 4096, 4096, 9000, 30_000, 70_000, 300_000])
    if number % EVERY == 90:
        size = LARGE
    start = chance.randrange(MIB)
    return (b"%d " % number + pool(seed)[start : start + size])[:size]


class Shelf(Mapping[str, File]):
    """The files of one mirror, made on demand."""

    def __init__(self, seed: int, kind: str):
        self._seed = seed
        self._kind = kind

    def __getitem__(self, path: str) -> File:
        number = int(path[1:])
        body = content(self._seed, number)
        if self._kind == "liar" and body and random.Random(f"lie {path}").random() < 0.3:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        return File(body, etag=f'"{hashlib.md5(body).hexdigest()}"')

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def fault(options: argparse.Namespace, index: int, request: Request) -> Fault | None:
    """Return the fault of a mirror's request."""
    chance = random.Random(f"{options.seed}/{options.serve}/{index}/{request.path}")
    size = chance.choice([0, 1, 1000, 8000, 200_000, 9 * MIB])
    if options.serve == "staller" and chance.random() < 0.05:
        return StallAfter(size)
    if chance.random() >= options.faults:
        return None
    return chance.choice(
        [
            CutAfter(size),
            ResetAfter(size),
            CutAfter(chance.randrange(60), whole=True),
            Status(503, {"Retry-After": "0"}, b"not now"),
            Status(429, body=b"slowly"),
            Status(500, {"Connection": "close"}, b"x" * 100_000),
        ]
    )


def serve(options: argparse.Namespace) -> None:
    """Be a mirror until the standard input ends. Print the port first."""
    with FileServer(
        Shelf(options.seed, options.serve),
        faults=functools.partial(fault, options),
        record=False,
    ) as server:
        print(server.port, flush=True)
        sys.stdin.read()


def make(options: argparse.Namespace, mirrors: Mirrors, number: int) -> HttpDownload:
    """Make the download of a file."""
    body = content(options.seed, number)
    urls = [mirrors.url(str(number)), *mirrors.urls(str(number))]
    download = HttpDownload(
        urls[0],
        FileWriter(options.client / str(number), resume=True),
        mirrors=list(dict.fromkeys(urls))[1:],
        parts=4,
    )
    download.pipeline = (None, 1, 8)[number % 3]
    download.skip_existing = True
    download.timeout = Timeout(connect=10, read=2)
    download.retry = Retry(total=8, backoff_factor=0.02, status_forcelist=TRANSIENT)
    download.validations += [
        SizeValidation(len(body)),
        DigestValidation("sha256", hashlib.sha256(body).hexdigest()),
    ]
    return download


def fetch(options: argparse.Namespace) -> None:
    """Download all files. Print a line for each that is complete, and for each error."""
    mirrors = Mirrors(options.base)
    limits = Limits(bandwidth=100_000_000, per_host=8, in_flight=128 * MIB)
    downloads = (make(options, mirrors, number) for number in range(options.files))
    with Batch(downloads, concurrent=options.threads, limits=limits) as batch:
        for plan in batch():
            print(f"lost: {plan.error}" if plan.error else "complete", flush=True)


@contextlib.contextmanager
def mirror(options: argparse.Namespace, kind: str) -> Iterator[str]:
    """Run a mirror in its own process. Return its base URL."""
    arguments = ["--serve", kind, "--seed", str(options.seed), "--faults", str(options.faults)]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def run(options: argparse.Namespace, bases: list[str], folder: Path, until: int) -> Counter[str]:
    """Run a client, and kill it once so many files of this run are complete."""
    arguments = ["--client", str(folder), *(f"--base={base}" for base in bases)]
    for name in ("files", "threads", "seed"):
        arguments += [f"--{name}", str(getattr(options, name))]
    found: Counter[str] = Counter()
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found[line.partition(":")[0].strip()] += 1
            if line.startswith("lost"):
                print(line, end="", file=sys.stderr)
            if found["complete"] == until:
                process.kill()
                found["killed"] += 1
    if process.returncode and not found["killed"]:
        found["failed"] += 1
    return found


def judge(options: argparse.Namespace, folder: Path) -> Counter[str]:
    """Compare the files with their content, and count what else is there."""
    found: Counter[str] = Counter()
    for number in range(options.files):
        path = folder / str(number)
        if not path.exists():
            found["lost"] += 1
        elif path.read_bytes() != content(options.seed, number):
            found["wrong"] += 1
            print(f"wrong: {number}", file=sys.stderr)
    names = {str(number) for number in range(options.files)}
    found["partial"] = sum(path.name not in names for path in folder.iterdir())
    return found


def soak(options: argparse.Namespace, folder: Path) -> Counter[str]:
    """Run the client until a run ends by itself, and count the problems."""
    with contextlib.ExitStack() as stack:
        bases = [stack.enter_context(mirror(options, kind)) for kind in KINDS]
        # The files that a killed run completed are complete at once in the next one.
        for kill in range(1, KILLS + 1):
            killed = run(options, bases, folder, kill * options.files // (KILLS + 1))
            print(f"run {kill}: {killed['complete']} complete, killed {killed['killed']}")
            wrong = judge(options, folder)["wrong"]
            if wrong or not killed["killed"]:
                return Counter(wrong=wrong, failed=1)
        last = run(options, bases, folder, options.files + 1)
    found = judge(options, folder)
    found["lost"] += last["lost"]
    found["failed"] += last["failed"]
    return found


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000, help="how many (%(default)s)")
    parser.add_argument("--threads", type=int, default=16, help="at once (%(default)s)")
    parser.add_argument("--faults", type=float, default=0.02, help="part of them (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="any number")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--client", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base", action="append", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return 0
    if options.client:
        fetch(options)
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = soak(options, Path(folder))
    print(
        f"{options.files} files, {options.threads} threads, seed {options.seed}, "
        f"{time.monotonic() - began:.1f} s"
    )
    kinds = ("lost", "wrong", "partial", "failed")
    print(", ".join(f"{kind} {found[kind]}" for kind in kinds))
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
