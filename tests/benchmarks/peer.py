"""Runs one peer once in its own process and prints the time and memory that it used.

Usage: ``python -m benchmarks.peer MODULE:FUNCTION < JOB``
"""

# ruff: noqa: T201 - it prints for the process that started it
import contextlib
import gc
import json
import pkgutil
import sys
import time
from pathlib import Path

from benchmarks.job import Job
from benchmarks.usage import cpu, status


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
    # What a peer measures by itself.
    own = run(job) or {}
    seconds = time.perf_counter() - began
    used = cpu() - cpu_before
    memory = max(status("VmHWM") - idle, 0)
    print(json.dumps({"seconds": seconds, "cpu": used, "memory": memory, **own}))


if __name__ == "__main__":
    main()
