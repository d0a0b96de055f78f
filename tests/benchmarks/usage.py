"""What processes use: memory and CPU time."""

import contextlib
import os
import re
import resource
from pathlib import Path

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


def cpu_of(pid: int) -> float:
    """Return the CPU time of another process (seconds), or 0 if there is none."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
