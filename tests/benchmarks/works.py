"""What is done, by whom, and what is expected of it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

KIB, MIB, GIB = 1024, 1024**2, 1024**3
TIMES = "\N{MULTIPLICATION SIGN}"

Taken = Mapping[str, Mapping[str, float]]
"""What each peer took in one round: seconds, cpu (seconds), memory (bytes)."""


@dataclass(frozen=True)
class Peer:
    """One who does the work.

    Attributes:
        title: What it is, for people.
        run: The function that does it, in benchmarks.peers.
        needs: Modules and programs without which it is left out.
        keeps: Whether its files are there at the end, and are compared then.
    """

    title: str
    run: str
    needs: tuple[str, ...] = ()
    keeps: bool = True

    @property
    def missing(self) -> list[str]:
        """What it needs and isn't there."""
        return [
            name
            for name in self.needs
            if shutil.which(name) is None and importlib.util.find_spec(name) is None
        ]


OURS = "ours"
PEERS = {
    OURS: Peer("this library", "ours:run"),
    "two-processes": Peer("this library, two processes", "ours:two_processes"),
    "transfer": Peer("this library, without digest", "ours:transfer"),
    "monitored": Peer("this library, DownloadMonitor", "ours:monitored"),
    "monitored-validated": Peer(
        "this library, DownloadMonitor and DigestValidation", "ours:monitored_and_validated"
    ),
    "removed": Peer("this library, files removed", "ours:removed", keeps=False),
    "batch": Peer("this library, Batch", "ours:nothing"),
    "requests": Peer("requests, ThreadPoolExecutor", "requests_loop:run", ("requests",)),
    "aiohttp": Peer("aiohttp", "aiohttp_loop:run", ("aiohttp",)),
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
FIELD = (OURS, "requests", "aiohttp", "pulpcore", "httpx", "curl", "aria2")


@dataclass(frozen=True)
class Target:
    """What is expected of one round of a work.

    Attributes:
        title: What it is about.
        measure: Takes what the peers took in one round, and returns the figure.
        peers: Those that it needs.
        most: The figure may be no larger than this.
        least: Or no smaller than this.
        unit: What stands behind the figure.
    """

    title: str
    measure: Callable[[Taken], float]
    peers: tuple[str, ...]
    most: float | None = None
    least: float | None = None
    unit: str = TIMES

    def is_met(self, figure: float) -> bool:
        """Whether a figure is as expected."""
        return (self.most is None or figure <= self.most) and (
            self.least is None or figure >= self.least
        )


def _shown(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def _faster(peer: str, least: float | None, ours: str = OURS) -> Target:
    """Expect to be so many times as fast as another."""
    return Target(
        f"{PEERS[ours].title}: as fast as {PEERS[peer].title}",
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
        name: What it is called on the command line.
        peers: Names of those who do it.
        targets: What is expected.
        files: How many files; 0 for none.
        size: Of each (bytes).
        threads: How many at once.
        wait: How long the server waits before each reply (seconds).
        count: How many downloads that do nothing.
        note: What else is to be said.
    """

    name: str
    peers: tuple[str, ...]
    targets: tuple[Target, ...]
    files: int = 0
    size: int = 0
    threads: int = 4
    wait: float = 0
    count: int = 0
    note: str = ""

    @property
    def title(self) -> str:
        """What it is, for people."""
        if not self.files:
            return f"{self.count:,} downloads that do nothing, {self.threads} at a time"
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        title = f"{files} of {_shown(self.size)}, {self.threads} at a time"
        if self.wait:
            title += f", each reply after {self.wait * 1000:g} ms"
        return f"{title}, {self.note}" if self.note else title

    @property
    def room(self) -> int:
        """What it needs beside its sources (bytes)."""
        # Of those that are removed as they come: what runs, and one that hasn't been removed yet.
        files = min(self.files, self.threads + 1) if "removed" in self.peers else self.files
        return files * self.size

    def small(self) -> Work:
        """A tenth of it, to see that all works."""
        return replace(
            self,
            files=self.files // 10 if self.size < MIB else self.files,
            size=min(self.size, 32 * MIB),
            count=self.count // 10,
        )


WAIT = 0.02
WORKS = (
    Work(
        "small",
        (*FIELD, "two-processes"),
        (
            _faster("requests", 2.2),
            _faster("pulpcore", 1.0),
            _faster(OURS, None, "two-processes"),
            _faster("pulpcore", None, "two-processes"),
        ),
        files=3000,
        size=4 * KIB,
        threads=8,
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
        (*FIELD, "curl-hashlib"),
        (_faster("curl", 1.0), _faster("curl-hashlib", 1.0), _faster("pulpcore", 2.0)),
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
                most=25,
                unit="µs",
            ),
            _memory("batch"),
        ),
        count=200_000,
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
