"""Runs one peer once in its own process and prints the time and memory that it used.

Usage: ``python -m benchmarks.peer MODULE:FUNCTION < JOB``
"""

# ruff: noqa: T201 - it prints for the process that started it
import contextlib
import gc
import json
import pkgutil
import re
import resource
import sys
import time
from pathlib import Path

from benchmarks.job import Job

KIB = 1024


def status(name: str, pid: int | str = "self") -> int:
    """Return a memory figure from the kernel's status of a process (bytes), or 0 without one."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text()
        match = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
        return int(match[1]) * KIB if match else 0
    return 0


def cpu() -> float:
    """Return the CPU time of this process and its children (seconds)."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """Run a peer."""
    run = pkgutil.resolve_name(f"benchmarks.peers.{sys.argv[1]}")
    job = Job.from_json(json.load(sys.stdin))
    gc.collect()
    idle = status("VmRSS")
    # Reset the peak of memory, which imports may have raised (proc(5), clear_refs).
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    cpu_before, began = cpu(), time.perf_counter()
    run(job)
    seconds = time.perf_counter() - began
    used = cpu() - cpu_before
    memory = max(status("VmHWM") - idle, 0)
    print(json.dumps({"seconds": seconds, "cpu": used, "memory": memory}))


if __name__ == "__main__":
    main()
