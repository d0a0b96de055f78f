"""Runs the works with the peers in turn and records the time and memory of each."""

from __future__ import annotations

import contextlib
import filecmp
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from servers import nginx

from benchmarks import content, server
from benchmarks.job import File, Job
from benchmarks.relay import relayed
from benchmarks.usage import cpu_of, status
from benchmarks.works import MIB, PEERS, Work, cores

SAMPLE = 0.02
"""How often the memory of a peer's children is looked at (seconds)."""

MIXED = -1
"""Instead of a size: files of mixed sizes."""

Results = dict[str, Any]
Tell = Callable[[str], None]


def run(works: Sequence[Work], rounds: int, tell: Tell, only: Sequence[str] = ()) -> Results:
    """Run the benchmark.

    Args:
        works: The works to run.
        rounds: The number of rounds.
        tell: Takes lines that report the progress.
        only: The names of the peers that take part; empty for all.

    Returns:
        The results, in types that JSON supports.

    Raises:
        RuntimeError: A peer failed, or there is no room for the files.
    """
    taking_part = {
        work.name: [name for name in work.peers if not only or name in only] for work in works
    }
    works = [work for work in works if taking_part[work.name]]
    missing = {
        PEERS[name].title: PEERS[name].missing
        for names in taking_part.values()
        for name in names
        if PEERS[name].missing
    }
    for title, names in missing.items():
        tell(f"left out: {title}: {', '.join(names)} not installed")
    results: list[Results] = []
    with _folder(works) as folder, contextlib.ExitStack() as stack:
        tell(f"files are written to {_file_system(folder)}")
        root = folder / "root"
        root.mkdir(mode=0o755)
        files = {
            key: content.mix(root, count) if key == MIXED else content.make(root, key, count)
            for key, count in _needed(works).items()
        }
        plain = None
        for work in works:
            if not work.files:
                serving = server.Server("", "none")
            elif work.wait or work.cap:
                serving = stack.enter_context(server.embedded(root, work.wait, work.cap))
            else:
                plain = plain or stack.enter_context(_plain(root, folder))
                serving = plain
            if work.round_trip is not None:
                serving = stack.enter_context(relayed(serving, work.round_trip, folder))
            names = [name for name in taking_part[work.name] if not PEERS[name].missing]
            tell(f"{work.name}: {work.title}; server: {serving.name}")
            job = Job(
                base=serving.base,
                files=files[_key(work)][: work.files] if work.files else [],
                target=folder / "target",
                threads=work.threads,
                count=work.count,
            )
            results.append(_work(work, names, job, root, rounds, tell, serving))
        where = _file_system(folder)
    return {
        "machine": _machine(),
        "versions": _versions(),
        "target": where,
        "rounds": rounds,
        "works": results,
    }


def _key(work: Work) -> int:
    return MIXED if work.is_mixed else work.size


def _needed(works: Sequence[Work]) -> dict[int, int]:
    """Return how many files of each size the works need."""
    needed: dict[int, int] = {}
    for work in works:
        if work.files:
            needed[_key(work)] = max(work.files, needed.get(_key(work), 0))
    return needed


def _work(
    work: Work,
    names: Sequence[str],
    job: Job,
    root: Path,
    rounds: int,
    tell: Tell,
    serving: server.Server,
) -> Results:
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            before = _cpu_of(serving)
            taken[name].append(_measure(name, job, root))
            taken[name][-1]["server"] = _cpu_of(serving) - before
        shown = ", ".join(f"{name} {taken[name][-1]['seconds']:.3f} s" for name in names)
        tell(f"  round {number + 1} of {rounds}: {shown}")
    targets = []
    for target in work.targets:
        if set(target.peers) <= set(names):
            # Compare within each round, because other load affects all peers of a round alike.
            figures = [
                target.measure({name: taken[name][number] for name in names})
                for number in range(rounds)
            ]
            targets.append(
                {
                    "title": target.title,
                    "unit": target.unit,
                    "least": target.least,
                    "most": target.most,
                    "figures": figures,
                    "median": median(figures),
                    "met": target.is_met(median(figures)),
                }
            )
    return {
        "name": work.name,
        "title": work.title,
        "server": serving.name,
        "files": work.files or work.count,
        "size": work.size,
        "threads": work.threads,
        "peers": [
            {"name": name, "title": PEERS[name].title, "rounds": taken[name]} for name in names
        ],
        "targets": targets,
    }


def _cpu_of(serving: server.Server) -> float:
    """Return the CPU time that a server has used (seconds)."""
    if not serving.pid:
        return 0.0
    return cpu_of(serving.pid) + sum(map(cpu_of, _children(serving.pid)))


def _measure(name: str, job: Job, root: Path) -> dict[str, float]:
    """Run a job with a peer and check the result."""
    peer = PEERS[name]
    job.target.mkdir()
    try:
        taken = _call(peer.run, job)
        if peer.keeps:
            _compare(job, root)
        elif any(job.target.iterdir()):
            raise RuntimeError(f"{name}: it left files")
    finally:
        shutil.rmtree(job.target)
    return taken | {"rate": (len(job.files) or job.count) / taken["seconds"]}


def _call(function: str, job: Job) -> dict[str, float]:
    """Run a peer's function in a new process."""
    with (
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer", function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=server.environment(),
            cwd=job.target,
        ) as process,
        _watched(process.pid) as peak,
    ):
        out, _ = process.communicate(json.dumps(job.as_json()))
    if process.returncode:
        raise RuntimeError(f"{function} failed; see what it said above")
    taken: dict[str, float] = json.loads(out)
    taken["memory"] += peak[0]
    return taken


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """Watch the memory of a process's children. The list gets the peak of their sum (bytes)."""
    peak = [0]
    end = threading.Event()

    def watch() -> None:
        while not end.wait(SAMPLE):
            peak[0] = max(peak[0], sum(status("VmHWM", child) for child in _children(pid)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        end.set()
        thread.join()


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _children(child)


def _compare(job: Job, root: Path) -> None:
    """Raise RuntimeError unless exactly the expected files exist with the right content."""
    # Some programs put a random prefix and a dash before the name.
    found = {path.name.rpartition("-")[2]: path for path in job.target.iterdir()}
    if set(found) != {file.name for file in job.files}:
        raise RuntimeError(f"{len(found)} files of {len(job.files)} are there")
    for file in job.files:
        if not _is_same(file, found[file.name], root):
            raise RuntimeError(f"{file.path} is not as it should be")


def _is_same(file: File, path: Path, root: Path) -> bool:
    return filecmp.cmp(root / file.path.lstrip("/"), path, shallow=False)


@contextlib.contextmanager
def _plain(root: Path, folder: Path) -> Iterator[server.Server]:
    with (
        server.embedded(root) if nginx.find_nginx() is None else server.nginx(root, folder)
    ) as serving:
        yield serving


@contextlib.contextmanager
def _folder(works: Sequence[Work]) -> Iterator[Path]:
    """Return a folder in memory if there is enough room, else on disk."""
    sources = {work.size: work.files * work.size for work in works if work.size < content.LARGE}
    largest = max((work.size for work in works), default=0)
    need = sum(sources.values()) + largest + max((work.room for work in works), default=0)
    need += need // 10 + 16 * MIB
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        if not place.is_dir():
            continue
        free = shutil.disk_usage(place).free
        if _file_system(place) == "tmpfs":
            # A folder in memory reduces the memory that the peers need.
            free = min(free, _memory("MemAvailable") * 3 // 4)
        if free >= need:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
                # nginx may serve as another user.
                Path(folder).chmod(0o755)
                yield Path(folder)
                return
    raise RuntimeError(f"there is no room for {need // MIB} MiB; leave out some works by --only")


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    return "disk"


def _memory(name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) * 1024


def _machine() -> Results:
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": cores(),
        "memory": _memory("MemTotal"),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load": round(os.getloadavg()[0], 2),
    }


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for name in ("pulpcore-futures", "requests", "urllib3", "aiohttp", "httpx", "pycurl"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    for name in ("curl", "aria2c"):
        if shutil.which(name):
            said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
            versions[name] = re.search(r"\d[\d.]+", said.stdout)[0]
    return versions
