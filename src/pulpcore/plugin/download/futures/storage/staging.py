"""Staging files: where the content of a file is written until it is complete, and renamed."""

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
from collections.abc import Callable
from typing import Any

from ..waiting.lock import this_process
from .descriptor import DescriptorFile

# Another number for each form of the notes, and for each one whose notes can't be trusted.
_KIND = "pulpcore-futures partial download 2"
_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NAME = re.compile(r"\.download-[0-9a-f]{16}(\.partial|\.note)?")
_TRIES = 3
_NAMES = 100
# Not the one that a user may have seeded.
_random = random.Random()  # noqa: S311 - the names are no secret
# A forked child would go on with the numbers of its parent, and so would each of its siblings.
os.register_at_fork(after_in_child=_random.seed)
_LONGEST_NOTE = 4096
_OLD = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ANY_MODE = 0o666
# What opening a file tells where a link, a folder, a device or somebody else's file is in the way.
# Any other error, such as EMFILE, says nothing about the file, which is kept.
_IN_THE_WAY = frozenset(
    {errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ENODEV}
)


def is_reserved(name: str) -> bool:
    """Whether a file of a name may be ours: a server that could choose it could plant content.

    Args:
        name: The name of a file.
    """
    return _NAME.fullmatch(name) is not None


def sync_folder(path: str) -> None:
    """Write the entries of a folder to the disk, so that a rename in it outlives a power cut.

    Args:
        path: The path of the folder.

    Raises:
        OSError: That isn't possible.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Stage(ABC):
    """A file in the folder of its target, which a rename puts in its place.

    Attributes:
        file (DescriptorFile): Where to write, at its end.
        note (str | None): What an earlier run noted of what it left.
        size (int): How much of the content an earlier run left (bytes); 0 without a note.
    """

    file: DescriptorFile
    note: str | None = None
    size = 0

    def __init__(self, target: str) -> None:
        """Note whose file it is to be.

        Args:
            target: The absolute path of the file that is to be.
        """
        self._target = target
        self._process = this_process()

    def publish(self) -> None:
        """Close the file, and rename it to its target.

        Raises:
            OSError: That isn't possible.
        """
        self.file.close()
        self._rename()

    def drop(self) -> None:
        """Close the file, and leave nothing behind but what is kept on purpose."""
        with contextlib.suppress(OSError):
            self.file.close()
        # A forked child that unwinds its stack must not remove the file of its parent.
        if self._process is this_process():
            self._remove()

    @abstractmethod
    def _rename(self) -> None:
        """Rename the file to its target."""

    @abstractmethod
    def _remove(self) -> None:
        """Remove the file, unless it is kept on purpose."""


class Temporary(Stage):
    """A file of which nothing stays unless it is published."""

    def __init__(self, target: str, mode: int | None = None) -> None:
        """Make the file.

        Args:
            target: The absolute path of the file that is to be.
            mode: Its permission bits; None for those of any new file.

        Raises:
            OSError: That isn't possible.
        """
        super().__init__(target)
        folder = target[: target.rindex("/") + 1]
        # Not by tempfile, whose files nobody else may read; and reading the umask is a race of the
        # whole process.
        left = _NAMES
        while True:
            # Short, whatever the target is called. The name need not be a secret: a file that
            # exists already is never opened. A secret one would cost a call of the system.
            self._path = f"{folder}.download-{_random.getrandbits(64):016x}"
            try:
                descriptor = _create(self._path, os.O_WRONLY, mode)
                break
            except FileExistsError:
                left -= 1
                if not left:
                    raise
        self.file = DescriptorFile(descriptor)
        _set_mode(descriptor, mode)

    def _rename(self) -> None:
        os.replace(self._path, self._target)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class Partial(Stage):
    """A file that stays for the next run, with a note beside it of what it is.

    It stays only if it has a note and at least one byte. It is locked while it is written to.

    A note counts for the bytes that it was written for and for no others. What an earlier run left
    is taken up by reading it to its end (:meth:`taken_up`); whoever writes without that, or with
    a note of another version, starts at byte 0, and the old note is removed before the first byte
    is written.
    """

    def __init__(self, target: str, mode: int | None = None) -> None:
        """Open the file, or make it.

        What others have put there is thrown away, and so is a file without a note.

        Args:
            target: The absolute path of the file that is to be.
            mode: Its permission bits; None for those of any new file.

        Raises:
            BlockingIOError: Another download is writing it.
            OSError: It can't be opened or locked.
        """
        super().__init__(target)
        folder, name = os.path.split(target)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        self._path = os.path.join(folder, f".download-{key}.partial")
        self._note_path = os.path.join(folder, f".download-{key}.note")
        # Whether the file stays when it is dropped. Unless it was just made, it does as long as
        # nobody has read its note.
        self._is_kept = True
        # Whether a write goes on with what is here.
        self._is_taken_up = False
        # Held until the file was renamed, when the other descriptor of it is closed already.
        self._lock = self._open(mode)
        try:
            self.file = _PartialFile(os.dup(self._lock), self._begin)
        except BaseException:
            self._remove()
            raise
        try:
            self._find_note()
            _set_mode(self._lock, mode)
        except BaseException:
            self.drop()
            raise

    def taken_up(self) -> None:
        """Go on with what an earlier run left: it was read, and is what is wanted."""
        self._is_taken_up = True

    def remember(self, note: str) -> None:
        """Note what the content is, so that it stays.

        What an earlier run left and nobody has taken up is dropped.

        Args:
            note: Whatever tells whether it can be gone on with.

        Raises:
            OSError: It can't be written; no note is left then.
        """
        self._begin()
        if note == self.note:
            return
        self._remove_note()
        self.note, self._is_kept = None, False
        size = os.fstat(self._lock).st_size
        content = json.dumps({"kind": _KIND, "note": note, "size": size}).encode("ascii")
        if len(content) > _LONGEST_NOTE:
            raise OSError(errno.EFBIG, "The note is too long")
        try:
            _write(self._note_path, content)
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove_note()
            raise
        self.note, self._is_kept = note, True

    def forget(self) -> None:
        """Drop the content and the note, in the order in which a kill between them does no harm."""
        self._remove_note()
        self.note, self.size, self._is_kept = None, 0, False
        os.ftruncate(self._lock, 0)
        os.lseek(self._lock, 0, os.SEEK_SET)
        self._is_taken_up = True

    def abandon(self) -> None:
        """Close what a forked child has of its parent's file: the child would keep the lock."""
        os.close(self._lock)
        self._lock = -1
        with contextlib.suppress(AttributeError, OSError):
            self.file.close()

    def _begin(self) -> None:
        """Have the content begin at byte 0, unless what is here was taken up."""
        if not self._is_taken_up:
            self.forget()

    def _rename(self) -> None:
        if not self._is_there(os.fstat(self._lock)):
            raise OSError(errno.ESTALE, "The partial file was taken away", self._path)
        os.replace(self._path, self._target)
        # A note without a file counts for nothing.
        with contextlib.suppress(OSError):
            self._remove_note()
        self._unlock()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            found = os.fstat(self._lock)
            if not (self._is_kept and found.st_size) and self._is_there(found):
                os.unlink(self._path)
                self._remove_note()
        self._unlock()

    def _unlock(self) -> None:
        if _held.pop(self._lock, None) is not None:
            # Also where a child, forked just now, has the file open.
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def _open(self, mode: int | None) -> int:
        """Open and lock the file."""
        for _ in range(_TRIES):
            is_new = False
            try:
                try:
                    descriptor = os.open(self._path, os.O_RDWR | _OLD)
                except FileNotFoundError:
                    descriptor = _create(self._path, os.O_RDWR, mode)
                    is_new = True
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
                self._throw_away()
                continue
            if self._is_locked(descriptor, is_new):
                self._is_kept = not is_new
                return descriptor
        raise BlockingIOError(errno.EAGAIN, "The partial file is in use", self._path)

    def _is_locked(self, descriptor: int, is_new: bool) -> bool:
        """Lock the file; tell whether it is the one that is to be used, and close it if not."""
        # Before it is locked, so that no fork comes in between.
        self._lock = descriptor
        _held[descriptor] = self
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            # Else whoever had the lock before has put it in its place, or dropped it.
            if self._is_there(found):
                if _is_ours(found):
                    return True
                self._throw_away()
        except BaseException as error:
            # A file system without locks would keep an empty file. Where the file is locked, the
            # one who has the lock removes it.
            if is_new and not isinstance(error, BlockingIOError):
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._unlock()
            raise
        self._unlock()
        return False

    def _throw_away(self) -> None:
        self._remove_note()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _is_there(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(found, os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _find_note(self) -> None:
        """Find what an earlier run left; what isn't any good is dropped."""
        note, least = self._read_note()
        size = os.lseek(self._lock, 0, os.SEEK_END)
        self._is_kept = note is not None and size >= max(least, 1)
        if self._is_kept:
            self.note, self.size = note, size
        else:
            self.forget()

    def _read_note(self) -> tuple[str | None, int]:
        """Return the note, and how long the file was when it was written (bytes).

        Raises:
            OSError: It can't be read now; it may well be good.
        """
        nothing = (None, 0)
        try:
            descriptor = os.open(self._note_path, os.O_RDONLY | _OLD)
        except FileNotFoundError:
            return nothing
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                return nothing
            raise
        try:
            if not _is_ours(os.fstat(descriptor)):
                return nothing
            content: Any = json.loads(os.read(descriptor, _LONGEST_NOTE))
        except (ValueError, RecursionError):
            return nothing
        finally:
            os.close(descriptor)
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            return nothing
        note, size = content.get("note"), content.get("size")
        return (note, size) if isinstance(note, str) and isinstance(size, int) else nothing

    def _remove_note(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._note_path)


class _PartialFile(DescriptorFile):
    """Calls a function before the first byte is written.

    The file object does it, and not a writer's ``append()``, which a subclass may override.
    """

    def __init__(self, descriptor: int, before: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._before: Callable[[], None] | None = before

    def write(self, buffer: Any) -> int:
        """Write bytes; return how many were written, which may be fewer.

        Raises:
            OSError: They can't be written.
        """
        if self._before is not None:
            self._before()
            self._before = None
        return super().write(buffer)


# The partial files of this process, by the descriptor that holds the lock. A lock by flock belongs
# to the open file, which a forked child shares: it would keep the lock as long as it lives.
_held: dict[int, Partial] = {}


def _abandon() -> None:
    for partial in _held.values():
        partial.abandon()
    _held.clear()


os.register_at_fork(after_in_child=_abandon)


def _create(path: str, flags: int, mode: int | None) -> int:
    """Make a file; it has no more permission bits than were given, nor than the umask allows."""
    return os.open(path, flags | _NEW, _ANY_MODE if mode is None else mode)


def _write(path: str, content: bytes) -> None:
    """Write a small new file that nobody else may read."""
    with DescriptorFile(os.open(path, os.O_WRONLY | _NEW, 0o600)) as file:
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, "The note was written only in part")


def _set_mode(descriptor: int, mode: int | None) -> None:
    """Give a file its permission bits, where they differ and the file system lets us."""
    if mode is None or stat.S_IMODE(os.fstat(descriptor).st_mode) == mode:
        return
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, mode)


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
