"""Short runs of the soak tests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "soak"
WELL = "lost 0, wrong 0, partial 0, threads left 0, file descriptors left 0"


@pytest.mark.parametrize(
    ("files", "threads", "faults", "seed"), [(600, 16, 0.1, 1), (60, 4, 1.0, 2), (100, 1, 0.0, 3)]
)
def test_short(files: int, threads: int, faults: float, seed: int) -> None:
    """A batch with all kinds of server faults loses no file and leaves no wrong or partial file.

    It also leaves no thread and no file descriptor open.
    """
    options = {"files": files, "threads": threads, "faults": faults, "seed": seed}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, SOAK / "soak.py", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stderr == ""
    first, last = done.stdout.splitlines()
    assert last == WELL
    assert done.returncode == 0
    injected = int(re.search(r"(\d+) faults", first)[1])
    # Each affected file has one to three faults.
    assert bool(injected) is bool(faults)
    assert injected <= 3 * files


def test_mirrors() -> None:
    """No file is lost, wrong or partial: three bad mirrors, parts, limits, and two kill -9."""
    done = subprocess.run(
        [sys.executable, SOAK / "mirrors.py", "--files", "200", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stderr == ""
    *runs, _, last = done.stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in runs] == ["1", "1"]
    assert last == "lost 0, wrong 0, partial 0, failed 0"
    assert done.returncode == 0
