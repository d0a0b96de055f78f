"""The journal of ``--session``: what earlier runs have finished isn't asked for again.

The file begins with a line that says what it is. Each further line is the key of a finished file,
of its target, its URL and its size, in 16 hex digits. So the journal holds no URL, and no secret.

A line is written by one system call, after the file was synced to the disk. So ``kill -9`` loses
what was running at that moment, and a power cut loses the lines that the disk doesn't have yet:
these files are asked for again. A line that is damaged counts for nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from types import TracebackType
from typing import Self

import click

from .keys import Keys, key_of

_FIRST = b"pulp-futures session 1\n"
_LINE = 17


class Session:
    """The journal. One run at a time may have it."""

    def __init__(self, path: str) -> None:
        """Open the journal, or create it. Only its owner may read it.

        Args:
            path: The path of the file.

        Raises:
            click.UsageError: It can't be opened, is no journal, or another run has it.
        """
        try:
            self._file = open(  # noqa: SIM115 - the end of the `with` closes it
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600),
                "r+b",
                buffering=0,
            )
        except OSError as error:
            raise click.UsageError(f"--session: {path!r}: {error.strerror}") from error
        try:
            self._keys = self._read(path)
        except BaseException:
            self._file.close()
            raise

    def _read(self, path: str) -> Keys:
        descriptor = self._file.fileno()
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise click.UsageError(f"--session: {path!r} is no regular file.")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise click.UsageError(f"--session: another run is using {path!r}.") from error
        keys, first, last = Keys(), True, b"\n"
        with open(path, "rb") as lines:
            while line := lines.readline(len(_FIRST)):
                if first and line != _FIRST:
                    raise click.UsageError(f"--session: {path!r} is another file.")
                if not first and len(line) == _LINE:
                    keys.add(_number(line))
                first, last = False, line
        os.fchmod(descriptor, 0o600)
        if first:
            self._file.write(_FIRST)
        elif not last.endswith(b"\n"):
            # The last run was killed in the middle of a line.
            self._file.write(b"\n")
        return keys

    def has(self, path: str, url: str) -> bool:
        """Return whether an earlier run has finished a file, and it is there with its size.

        Args:
            path: The path of the file.
            url: Its URL.
        """
        key = _key(path, url)
        return key is not None and key in self._keys

    def add(self, path: str, url: str) -> None:
        """Note that a file is finished.

        Args:
            path: The path of the file.
            url: Its URL.

        Raises:
            OSError: The journal can't be written.
        """
        key = _key(path, url)
        if key is not None and self._keys.add(key):
            self._file.write(b"%016x\n" % key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def _key(path: str, url: str) -> int | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return key_of(os.path.abspath(path), url, str(found.st_size))


def _number(line: bytes) -> int:
    try:
        return int(line, 16)
    except ValueError:
        return 0
