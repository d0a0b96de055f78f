"""The files that are served."""

import hashlib
import os
import random
from pathlib import Path

from benchmarks.job import File

BLOCK = 1024 * 1024
# From this size on (bytes) one file gets many names, because copies would take too much room.
LARGE = 8 * BLOCK


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
