"""The work of a peer, and the check of its result."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self


class File(NamedTuple):
    """A file to download.

    Attributes:
        path: Its path below the server's base.
        size: In bytes.
        sha256: The digest (hex).
    """

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the target folder."""
        return self.path.rpartition("/")[2]

    def check(self, size: int, digest: str) -> None:
        """Raise ValueError unless size and digest (hex) are those of the file."""
        if (size, digest) != (self.size, self.sha256):
            raise ValueError(f"{self.path}: wrong size or digest: {size} bytes, {digest}")


@dataclass(frozen=True)
class Job:
    """Files to download.

    Attributes:
        base: The server's URL, without a slash at the end.
        files: The files to download.
        target: The existing, empty target folder.
        threads: The number of threads.
        count: The number of empty downloads.
    """

    base: str
    files: list[File]
    target: Path
    threads: int
    count: int

    def url(self, file: File) -> str:
        """Return the URL of a file."""
        return self.base + file.path

    def as_json(self) -> dict[str, Any]:
        """Return the text that from_json() reads."""
        return {**vars(self), "target": str(self.target)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make a job from the text of as_json()."""
        files = [File(*file) for file in values["files"]]
        return cls(**{**values, "files": files, "target": Path(values["target"])})


class Sink:
    """A file that is written and hashed, as in code without a library."""

    def __init__(self, job: Job, file: File) -> None:
        """Open the target of a file."""
        self._file = file
        self._out = (job.target / file.name).open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write and hash the next bytes."""
        self._out.write(data)
        self._digest.update(data)
        self._size += len(data)

    def close(self) -> None:
        """Close and check the file."""
        self._out.close()
        self._file.check(self._size, self._digest.hexdigest())
