"""The works, their peers, and the expected results."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

KIB, MIB, GIB = 1024, 1024**2, 1024**3
TIMES = "\N{MULTIPLICATION SIGN}"

Taken = Mapping[str, Mapping[str, float]]
"""What each peer took in one round: seconds, cpu (seconds), memory (bytes)."""


@dataclass(frozen=True)
class Peer:
    """A library or program that does the work.

    Attributes:
        title: What it is, for people.
        run: The function that does it, in benchmarks.peers.
        needs: Modules and programs that it needs; without them it is left out.
        keeps: Whether its files exist at the end, where they are compared.
    """

    title: str
    run: str
    needs: tuple[str, ...] = ()
    keeps: bool = True

    @property
    def missing(self) -> list[str]:
        """Return what it needs and isn't installed."""
        return [
            name
            for name in self.needs
            if shutil.which(name) is None and importlib.util.find_spec(name) is None
        ]


OURS = "ours"
PEERS = {
    OURS: Peer("this library", "ours:run"),
    "two-processes": Peer("this library, two processes", "ours:two_processes"),
    "alone": Peer("this library, pipeline=1", "ours:alone"),
    "processes": Peer("this library, a batch on two processes", "ours:processes"),
    "one-process": Peer("this library, a batch on one process", "ours:one_process"),
    "four-processes": Peer("this library, a batch on four processes", "ours:four_processes"),
    "batch-processes": Peer("this library, Batch on two processes", "ours:nothing_by_processes"),
    "transfer": Peer("this library, without digest", "ours:transfer"),
    "parts": Peer("this library, parts=4, without digest", "ours:in_parts"),
    "monitored": Peer("this library, DownloadMonitor", "ours:monitored"),
    "monitored-validated": Peer(
        "this library, DownloadMonitor and DigestValidation", "ours:monitored_and_validated"
    ),
    "removed": Peer("this library, files removed", "ours:removed", keeps=False),
    "batch": Peer("this library, Batch", "ours:nothing"),
    "requests": Peer("requests, ThreadPoolExecutor", "requests_loop:run", ("requests",)),
    "aiohttp": Peer("aiohttp", "aiohttp_loop:run", ("aiohttp",)),
    "pipelined": Peer("this library, pipeline=8", "ours:pipelined"),
    "pycurl": Peer("pycurl, multi interface", "pycurl_multi:run", ("pycurl",)),
    "pulpcore": Peer("aiohttp, pulpcore's way", "pulpcore_way:run", ("aiohttp",)),
    "httpx": Peer("httpx, ThreadPoolExecutor", "httpx_loop:run", ("httpx",)),
    "curl": Peer("curl --parallel, sha256sum", "programs:curl", ("curl", "sha256sum")),
    "curl-hashlib": Peer("curl --parallel, hashlib", "programs:curl_and_hashlib", ("curl",)),
    "aria2": Peer("aria2", "programs:aria2", ("aria2c",)),
    "digest": Peer("sha256 alone, from memory", "reference:one_digest", keeps=False),
    "digests": Peer("four digests in a row, from memory", "reference:four_digests", keeps=False),
    "digests-by-two": Peer(
        "four digests by two threads, from memory", "reference:digests_by_two", keeps=False
    ),
    "sockets-files": Peer("bare sockets, files hashed and renamed", "reference:sockets_and_files"),
    "sockets": Peer("bare sockets, nothing kept", "reference:sockets", keeps=False),
    "executor": Peer("ThreadPoolExecutor", "reference:executor", keeps=False),
}
FAR = (OURS, "pipelined", "aiohttp", "curl", "aria2", "pycurl")
FIELD = (OURS, "requests", "aiohttp", "pulpcore", "httpx", "curl", "aria2")


@dataclass(frozen=True)
class Target:
    """The expected result of one round of a work.

    Attributes:
        title: Its title.
        measure: Takes the measurements of one round and returns the figure.
        peers: The peers that it needs.
        most: The upper limit of the figure.
        least: The lower limit of the figure.
        unit: The unit after the figure.
    """

    title: str
    measure: Callable[[Taken], float]
    peers: tuple[str, ...]
    most: float | None = None
    least: float | None = None
    unit: str = TIMES

    def is_met(self, figure: float) -> bool:
        """Return whether a figure is as expected."""
        return (self.most is None or figure <= self.most) and (
            self.least is None or figure >= self.least
        )


def _shown(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def _faster(peer: str, least: float | None, ours: str = OURS) -> Target:
    """Expect one peer to be so many times as fast as another."""
    return Target(
        f"speed of {PEERS[ours].title}, by that of {PEERS[peer].title}",
        lambda taken: taken[peer]["seconds"] / taken[ours]["seconds"],
        (ours, peer),
        least=least,
    )


def _memory(peer: str) -> Target:
    return Target(
        f"{PEERS[peer].title}: memory",
        lambda taken: taken[peer]["memory"] / MIB,
        (peer,),
        most=48,
        unit="MiB",
    )


@dataclass(frozen=True)
class Work:
    """A work that each of its peers does.

    Attributes:
        name: Its name on the command line.
        peers: The names of its peers.
        targets: The expected results.
        files: The number of files; 0 for none.
        size: Of each (bytes).
        threads: How many at once.
        wait: The delay of each response of the server (seconds).
        cap: How many bytes a connection of the server sends in a second; 0 for any number.
        round_trip: The round-trip time to the server (seconds); None for no relay before it.
        is_mixed: The sizes are those of a Debian mirror, and ``size`` is the mean.
        count: The number of empty downloads.
        note: A further remark.
    """

    name: str
    peers: tuple[str, ...]
    targets: tuple[Target, ...]
    files: int = 0
    size: int = 0
    threads: int = 4
    wait: float = 0
    cap: float = 0
    round_trip: float | None = None
    is_mixed: bool = False
    count: int = 0
    note: str = ""

    @property
    def title(self) -> str:
        """What it is, for people."""
        if not self.files:
            return f"{self.count:,} downloads that do nothing, {self.threads} at a time"
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        size = "mixed sizes" if self.is_mixed else _shown(self.size)
        title = f"{files} of {size}, {self.threads} at a time"
        if self.round_trip is not None:
            title += f", {self.round_trip * 1000:g} ms away"
        if self.wait:
            title += f", each reply after {self.wait * 1000:g} ms"
        return f"{title}, {self.note}" if self.note else title

    @property
    def room(self) -> int:
        """The room it needs besides its sources (bytes)."""
        # If files are removed at once, those in progress and one that isn't removed yet exist.
        files = min(self.files, self.threads + 1) if "removed" in self.peers else self.files
        return files * self.size

    def small(self) -> Work:
        """Return a tenth of the work, for a quick test."""
        return replace(
            self,
            files=self.files // 10 if self.size < MIB else self.files,
            size=min(self.size, 32 * MIB),
            count=self.count // 10,
        )


def _far(round_trip: float, files: int, targets: tuple[Target, ...] = ()) -> Work:
    """Return small files from a server so far away."""
    return Work(
        f"far-{round_trip * 1000:g}",
        FAR,
        targets,
        files=files,
        size=4 * KIB,
        threads=8,
        round_trip=round_trip,
    )


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


WAIT = 0.02
WORKS = (
    Work(
        "small",
        (*FIELD, "pycurl", "two-processes"),
        (
            _faster("requests", 2.2),
            _faster("pulpcore", 1.6),
            _faster("aiohttp", 1.0),
            Target(
                "CPU, by that of aiohttp",
                lambda taken: taken[OURS]["cpu"] / taken["aiohttp"]["cpu"],
                (OURS, "aiohttp"),
                most=0.95,
            ),
            _faster(OURS, None, "two-processes"),
            _faster("pulpcore", None, "two-processes"),
        ),
        files=3000,
        size=4 * KIB,
        threads=8,
    ),
    Work(
        "small-processes",
        ("alone", "one-process", "processes", "aiohttp"),
        (
            _faster("alone", 1.3, "processes"),
            _faster("aiohttp", 1.25, "processes"),
            Target(
                f"{PEERS['processes'].title}, by what the CPU of client and server allows",
                lambda taken: (
                    (taken["processes"]["cpu"] + taken["processes"]["server"])
                    / cores()
                    / taken["processes"]["seconds"]
                ),
                ("processes",),
                least=0.85,
            ),
            Target(
                "CPU of the worker, by that of a batch on threads",
                lambda taken: taken["one-process"]["workers"] / taken["alone"]["cpu"],
                ("one-process", "alone"),
                most=1.2,
            ),
            Target(
                "CPU of the caller for a file",
                lambda taken: (
                    1e6
                    * taken["processes"]["caller"]
                    / (taken["processes"]["rate"] * taken["processes"]["seconds"])
                ),
                ("processes",),
                unit="µs",
            ),
        ),
        files=6000,
        size=4 * KIB,
        threads=8,
    ),
    Work(
        "far-processes",
        ("one-process", "four-processes"),
        (_faster("one-process", 3.6, "four-processes"),),
        files=6000,
        size=4 * KIB,
        threads=8,
        round_trip=0.04,
        note="8 in each process",
    ),
    _far(0, 3000),
    _far(0.01, 3000),
    _far(
        0.04,
        3000,
        (
            *(_faster(peer, 4.0, "pipelined") for peer in ("aiohttp", "curl", "aria2")),
            *(_faster(peer, 3.0) for peer in ("aiohttp", "curl", "aria2")),
            Target(
                "requests that a connection sends in a round trip",
                # More than two only if trains were longer than two.
                lambda taken: taken["pipelined"]["rate"] * 0.04 / 8,
                ("pipelined",),
                least=2,
            ),
        ),
    ),
    _far(0.15, 1000),
    Work(
        "far-mix",
        FAR,
        tuple(_faster(peer, 1.5) for peer in ("aiohttp", "curl", "aria2")),
        files=600,
        size=450 * KIB,
        threads=8,
        round_trip=0.04,
        is_mixed=True,
    ),
    Work(
        "medium",
        (*FIELD, "two-processes"),
        (_faster("pulpcore", 1.5), _faster("aiohttp", 1.2), _faster(OURS, None, "two-processes")),
        files=1000,
        size=200 * KIB,
        threads=8,
    ),
    Work(
        "large",
        (*FIELD, "curl-hashlib", "processes"),
        (
            _faster("curl", 1.0),
            _faster("curl-hashlib", 1.0),
            _faster("pulpcore", 2.0),
            _faster(OURS, 1.0, "processes"),
        ),
        files=2,
        size=GIB,
        threads=2,
    ),
    Work(
        "one",
        (OURS, "transfer", "digest", "requests", "aiohttp", "curl"),
        (
            Target(
                "time, by the slower of transfer and digest alone",
                lambda taken: (
                    taken[OURS]["seconds"]
                    / max(taken["transfer"]["seconds"], taken["digest"]["seconds"])
                ),
                (OURS, "transfer", "digest"),
                most=1.15,
            ),
        ),
        files=1,
        size=GIB,
        threads=1,
        note="one digest",
    ),
    Work(
        "capped",
        ("transfer", "parts"),
        (_faster("transfer", 3.0, "parts"),),
        files=1,
        size=GIB,
        threads=1,
        cap=20_000_000,
        note="each connection has 20 MB/s",
    ),
    Work(
        "uncapped",
        ("transfer", "parts"),
        (
            _faster("transfer", 0.9, "parts"),
            Target(
                f"CPU of {PEERS['parts'].title}, by that of one connection",
                lambda taken: taken["parts"]["cpu"] / taken["transfer"]["cpu"],
                ("transfer", "parts"),
                most=1.1,
            ),
        ),
        files=1,
        size=GIB,
        threads=1,
        note="one connection or several",
    ),
    Work(
        "monitor",
        ("monitored", "monitored-validated", "digests", "digests-by-two", "pulpcore"),
        (
            Target(
                "time, by that of the four digests in a row",
                lambda taken: taken["monitored"]["seconds"] / taken["digests"]["seconds"],
                ("monitored", "digests"),
                most=0.6,
            ),
            Target(
                "the digests alone on two cores, by the four in a row",
                lambda taken: taken["digests-by-two"]["seconds"] / taken["digests"]["seconds"],
                ("digests-by-two", "digests"),
            ),
            _faster("pulpcore", None, "monitored"),
        ),
        files=1,
        size=GIB,
        threads=1,
        note="four digests",
    ),
    Work(
        "waiting",
        (*FIELD, "sockets-files", "sockets"),
        (
            Target(
                "speed, by the ideal of 1,600 a second",
                lambda taken: taken[OURS]["rate"] / (32 / WAIT),
                (OURS,),
                least=0.95,
            ),
            *(
                Target(
                    f"{PEERS[peer].title}, by the ideal",
                    lambda taken, peer=peer: taken[peer]["rate"] / (32 / WAIT),
                    (peer,),
                )
                for peer in ("sockets-files", "sockets")
            ),
        ),
        files=2000,
        size=4 * KIB,
        threads=32,
        wait=WAIT,
    ),
    Work(
        "nothing",
        ("batch", "executor"),
        (
            Target(
                "Batch: time of a download",
                lambda taken: 1e6 / taken["batch"]["rate"],
                ("batch",),
                most=10,
                unit="µs",
            ),
            _memory("batch"),
        ),
        count=200_000,
    ),
    Work(
        "nothing-processes",
        ("batch-processes",),
        (
            Target(
                "Chunks: CPU of the caller for a download, beside its own loop",
                lambda taken: (
                    1e6
                    * taken["batch-processes"]["chunks"]
                    / (taken["batch-processes"]["rate"] * taken["batch-processes"]["seconds"])
                ),
                ("batch-processes",),
                most=15,
                unit="µs",
            ),
            Target(
                "growth of the caller's memory after the first fifth",
                # The window grows and shrinks with the speed of the workers.
                lambda taken: taken["batch-processes"]["growth"] / MIB,
                ("batch-processes",),
                most=16,
                unit="MiB",
            ),
        ),
        count=1_000_000,
    ),
    Work(
        "flow",
        ("removed",),
        (_memory("removed"),),
        files=10,
        size=GIB,
        threads=2,
        note="each removed when it is there",
    ),
)
