"""The files that are served."""

import hashlib
import os
import random
from itertools import pairwise
from pathlib import Path

from benchmarks.job import File

BLOCK = 1024 * 1024
# From this size on (bytes) one file gets many names, because copies would take too much room.
LARGE = 8 * BLOCK

# Shares of the files of a Debian mirror, and the size that they don't exceed (bytes). Larger files
# are left out: they would hide what small ones cost.
QUANTILES = (
    (0.0, 1_000),
    (0.1, 7_800),
    (0.5, 59_000),
    (0.75, 296_000),
    (0.9, 1_450_000),
    (1.0, 4 * BLOCK),
)


def make(root: Path, size: int, count: int) -> list[File]:
    """Make files of a size, with the same content in each run.

    Args:
        root: The served folder.
        size: The size of each file (bytes).
        count: The number of files.
    """
    folder = root / str(size)
    folder.mkdir(mode=0o755)
    source = random.Random(size)
    files: list[File] = []
    for number in range(count):
        path = folder / f"f{number:06}"
        if size >= LARGE and files:
            os.link(folder / files[0].name, path)
            digest = files[0].sha256
        else:
            digest = _write(path, size, source)
        files.append(File(f"/{size}/{path.name}", size, digest))
    return files


def mix(root: Path, count: int) -> list[File]:
    """Make files whose sizes are distributed as in a Debian mirror.

    Args:
        root: The served folder.
        count: The number of files.
    """
    folder = root / "mix"
    folder.mkdir(mode=0o755)
    source = random.Random(count)
    # In the same order in each run, but not sorted.
    sizes = [quantile((number + 0.5) / count) for number in range(count)]
    source.shuffle(sizes)
    files = []
    for number, size in enumerate(sizes):
        path = folder / f"f{number:06}"
        files.append(File(f"/mix/{path.name}", size, _write(path, size, source)))
    return files


def quantile(share: float) -> int:
    """Return the size (bytes) that this share of the files doesn't exceed."""
    for (low, least), (high, most) in pairwise(QUANTILES):
        if share <= high:
            # The sizes between two known quantiles are spread evenly on a logarithmic scale.
            return round(least * (most / least) ** ((share - low) / (high - low)))
    return QUANTILES[-1][1]


def _write(path: Path, size: int, source: random.Random) -> str:
    block = source.randbytes(min(size, BLOCK))
    digest = hashlib.sha256()
    with path.open("wb") as out:
        while size:
            data = block[:size]
            out.write(data)
            digest.update(data)
            size -= len(data)
    return digest.hexdigest()
