"""Where the content of a file waits until it is whole, and is put in its place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import random
import re
import stat
from abc import ABC, abstractmethod

_KIND = "pulpcore-futures partial download 1"
_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NAME = re.compile(r"\.download-[0-9a-f]{16}(\.partial|\.note)?")
_TRIES = 3
_NAMES = 100
# Not the one that a user may have seeded.
_random = random.Random()  # noqa: S311 - the names are no secret
_LONGEST_NOTE = 4096
_OLD = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def is_reserved(name: str) -> bool:
    """Whether a file of a name may be ours: a server that could choose it could plant content.

    Args:
        name: The name of a file.
    """
    return _NAME.fullmatch(name) is not None


class Stage(ABC):
    """A file in the folder of its target, so that a rename puts it in its place.

    Attributes:
        descriptor (int): Where to write, at its end. It is the caller's to close.
        note (str | None): What an earlier run noted of what it left.
        size (int): How much of the content an earlier run left (bytes); 0 without a note.
    """

    descriptor: int
    note: str | None = None
    size = 0

    @abstractmethod
    def publish(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: That isn't possible.
        """

    @abstractmethod
    def drop(self) -> None:
        """Leave nothing behind but what is kept on purpose."""


class Temporary(Stage):
    """A file of which nothing stays unless it is published."""

    def __init__(self, target: str) -> None:
        """Make the file.

        Args:
            target: The absolute path of the file that is to be.

        Raises:
            OSError: That isn't possible.
        """
        self._target = target
        folder = target[: target.rindex("/") + 1]
        # Not by tempfile, whose files nobody else may read; and reading the umask is a race of the
        # whole process.
        left = _NAMES
        while True:
            # Short, whatever the target is called. The name need not be a secret, for what is
            # there isn't opened; that would be one call of the system more.
            self._path = f"{folder}.download-{_random.getrandbits(64):016x}"
            try:
                self.descriptor = os.open(self._path, os.O_WRONLY | _NEW, 0o666)
                return
            except FileExistsError:
                # A forked child goes on with the same numbers.
                left -= 1
                if not left:
                    raise

    def publish(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: That isn't possible.
        """
        os.replace(self._path, self._target)

    def drop(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class Partial(Stage):
    """A file that stays for the next run, with a note beside it of what it is.

    Without a note it doesn't stay. It is locked while it is written to.
    """

    def __init__(self, target: str) -> None:
        """Open the file, or make it.

        What others have put there is thrown away, and so is a file without a note.

        Args:
            target: The absolute path of the file that is to be.

        Raises:
            BlockingIOError: Another download is writing it.
            OSError: It can't be opened.
        """
        folder, name = os.path.split(target)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        self._target = target
        self._path = os.path.join(folder, f".download-{key}.partial")
        self._note_path = os.path.join(folder, f".download-{key}.note")
        # Holds the lock until the end, when the other descriptor of the file is closed already.
        self._lock = self._open()
        try:
            self.descriptor = os.dup(self._lock)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self.note = self._read_note()
            self.size = os.lseek(self.descriptor, 0, os.SEEK_END)
            if self.note is None:
                self.forget()
        except BaseException:
            os.close(self.descriptor)
            self.note = None
            self.drop()
            raise

    def publish(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: That isn't possible.
        """
        if not self._is_there(os.fstat(self._lock)):
            raise OSError(errno.ESTALE, "The partial file was taken away", self._path)
        os.replace(self._path, self._target)
        self._remove_note()
        os.close(self._lock)

    def drop(self) -> None:
        """Remove the file, unless there is a note of it."""
        with contextlib.suppress(OSError):
            if self.note is None and self._is_there(os.fstat(self._lock)):
                os.unlink(self._path)
        os.close(self._lock)

    def remember(self, note: str) -> None:
        """Note what the content is, so that it stays.

        Args:
            note: Whatever tells whether it can be gone on with.

        Raises:
            OSError: It can't be written.
        """
        if note == self.note:
            return
        self._remove_note()
        descriptor = os.open(self._note_path, os.O_WRONLY | _NEW, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump({"kind": _KIND, "note": note}, file)
        self.note = note

    def forget(self) -> None:
        """Drop the content and the note, in the order in which a kill between them does no harm."""
        self._remove_note()
        self.note, self.size = None, 0
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    def _open(self) -> int:
        """Open and lock the file."""
        for _ in range(_TRIES):
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _OLD, 0o666)
            except FileNotFoundError:
                raise
            except OSError:
                # A link, or a file of somebody else's.
                self._throw_away()
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(descriptor)
                # Else whoever had the lock before has put it in its place, or dropped it.
                if self._is_there(found):
                    if _is_ours(found):
                        return descriptor
                    self._throw_away()
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise BlockingIOError(errno.EAGAIN, "The partial file is in use", self._path)

    def _throw_away(self) -> None:
        self._remove_note()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _is_there(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(found, os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _read_note(self) -> str | None:
        try:
            descriptor = os.open(self._note_path, os.O_RDONLY | _OLD)
            try:
                content = json.loads(os.read(descriptor, _LONGEST_NOTE))
            finally:
                os.close(descriptor)
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            return None
        note = content.get("note")
        return note if isinstance(note, str) else None

    def _remove_note(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._note_path)


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
