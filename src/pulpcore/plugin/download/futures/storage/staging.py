"""Staging files: a file is written under a temporary name, and renamed when it is complete.

A :class:`Temporary` file is removed if the download fails. A :class:`Partial` file stays, with a
note that identifies its content, so that the next run can resume it.
"""

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

from ..waiting.lock import Process
from .descriptor import DescriptorFile

# The version of the note's format. A bug that left wrong notes also needs a new number.
_KIND = "pulpcore-futures partial download 3"
_CREATE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NAME = re.compile(r"\.download-[0-9a-f]{16}(\.partial|\.note)?")
_OPEN_TRIES = 3
_NAME_TRIES = 100
# A generator of our own: an application may seed the one of the module.
_random = random.Random()  # noqa: S311 - the names are no secret
# Forked children would otherwise all generate the same names as their parent.
os.register_at_fork(after_in_child=_random.seed)
_LONGEST_NOTE = 4096
# A note is rewritten in place, which works on a full disk. It has padding for its last field.
_ROOM = 64
_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ANY_MODE = 0o666
# The errors of open() if a link, a folder, a device or another user's file has the name. Any other
# error, such as EMFILE, says nothing about the file, so the file is kept.
_FOREIGN_FILE = frozenset(
    {errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ENODEV}
)


# The fields of a note, besides ``end``.
_NOTE_FIELDS = {"note": str, "inode": int, "size": int}


def is_reserved(name: str) -> bool:
    """Whether a file name has the form of a staging file or a note.

    A server must not choose such a name for a download: it could plant content for a later resume.

    Args:
        name: The name of a file.
    """
    return _NAME.fullmatch(name) is not None


def sync_folder(path: str) -> None:
    """Call fsync for a folder, so that a rename in it survives a power cut.

    Args:
        path: The path of the folder.

    Raises:
        OSError: The folder can't be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Stage(ABC):
    """A staging file in the folder of its target.

    Attributes:
        file (DescriptorFile): The open file. Its position is at its end.
        note (str | None): The note on the partial content of an earlier run; None without one.
        size (int): The size of that partial content (bytes); 0 without a note.
    """

    file: DescriptorFile
    note: str | None = None
    size = 0

    def __init__(self, target: str, mode: int | None = None) -> None:
        """Store the arguments.

        The constructor opens nothing: an interrupt may come just after open() has created the file.
        Then somebody must already own the object, to drop it.

        Args:
            target: The absolute path of the final file.
            mode: The permission bits; None for the default of the umask.
        """
        self._target = target
        self._mode = mode
        self._process = Process.current

    @abstractmethod
    def open(self) -> None:
        """Open the file.

        Raises:
            OSError: The file can't be created, opened or locked.
        """

    @abstractmethod
    def publish(self) -> None:
        """Rename the file, which is closed, to its target.

        Raises:
            OSError: The file can't be renamed.
        """

    def drop(self) -> None:
        """Close the file, and remove it unless it stays for a later run."""
        # An interrupt may have ended open() before there was a file object.
        with contextlib.suppress(OSError, AttributeError):
            self.file.close()
        # A forked child that unwinds the stack must not remove the file of its parent.
        if self._process is Process.current:
            self._remove()

    @abstractmethod
    def _remove(self) -> None:
        """Remove the file, unless it stays for a later run."""


class Temporary(Stage):
    """A staging file that is removed if the download fails."""

    _path: str | None = None

    def open(self) -> None:
        """Create the file.

        Raises:
            OSError: The file can't be created.
        """
        folder = self._target[: self._target.rindex("/") + 1]
        # tempfile creates files with mode 0600. To fix that afterwards, one must read the umask,
        # which is only possible by changing it for the whole process.
        left = _NAME_TRIES
        while True:
            # The name is short, so that it fits even if the target's name has the longest length.
            # It need not be unpredictable, because O_EXCL never opens an existing file. The
            # ``secrets`` module would cost a system call.
            self._path = f"{folder}.download-{_random.getrandbits(64):016x}"
            try:
                descriptor = _create(self._path, os.O_WRONLY, self._mode)
                self.file = DescriptorFile(descriptor)
                break
            except FileExistsError:
                left -= 1
                if not left:
                    # The existing file isn't ours to remove.
                    self._path = None
                    raise
        if self._mode is not None:
            _set_mode(descriptor, self._mode)

    def publish(self) -> None:
        """Rename the file to its target.

        Raises:
            OSError: The file can't be renamed.
        """
        os.replace(self._path or "", self._target)

    def _remove(self) -> None:
        if self._path is not None:
            if not hasattr(self, "file"):
                _close_lost(self._path)
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class Partial(Stage):
    """A staging file that stays for the next run, beside a note that identifies its content.

    It stays only if it has a note and at least one byte. A lock (flock) prevents two downloads from
    writing it at the same time.

    A note is valid only for the bytes that it was written for. A run resumes the content of an
    earlier run by reading it to the end and calling :meth:`taken_up`. Without that call, a write or
    a new note drops the old content first, and removes the old note before the first byte is
    written.
    """

    _lock = -1

    def __init__(self, target: str, mode: int | None = None) -> None:
        """Store the arguments.

        Args:
            target: The absolute path of the final file.
            mode: The permission bits; None for the default of the umask.
        """
        super().__init__(target, mode)
        folder, name = os.path.split(target)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        self._path = os.path.join(folder, f".download-{key}.partial")
        self._note_path = os.path.join(folder, f".download-{key}.note")
        # Whether drop() leaves the file, which may be useful until its note was read.
        self._is_kept = True
        # Whether the next write appends to the content of the earlier run.
        self._is_resumed = False

    def open(self) -> None:
        """Open the file of an earlier run, or create it.

        A file of another user, a link, and a file without a valid note are replaced.

        Raises:
            BlockingIOError: Another download holds the lock.
            OSError: The file can't be opened or locked.
        """
        # A second descriptor of the file. It keeps the lock until the rename, which comes after
        # ``self.file`` has been closed.
        try:
            self._lock = self._open()
        except OSError:
            raise
        except BaseException:
            self._drop_empty()
            raise
        try:
            self.file = _PartialFile(os.dup(self._lock), self._drop_unless_resumed)
        except BaseException:
            self._remove()
            raise
        try:
            self._find_note()
            _set_mode(self._lock, self._mode)
        except BaseException:
            self.drop()
            raise

    def taken_up(self) -> None:
        """Keep the content of the earlier run: the next write appends to it."""
        self._is_resumed = True
        # The file grows from here on.
        self._rewrite_note(None)

    def remember(self, note: str) -> None:
        """Write a note, so that the file stays for a later run.

        This drops the content of an earlier run, unless :meth:`taken_up` was called.

        Args:
            note: A text that identifies the version of the content.

        Raises:
            OSError: The note can't be written. The old note is gone then, too.
        """
        self._drop_unless_resumed()
        if note != self.note:
            self._write_note(note)

    def _write_note(self, note: str) -> None:
        self._remove_note()
        self.note, self._is_kept = None, False
        content = self._note_text(note, None) + b" " * _ROOM
        if len(content) > _LONGEST_NOTE:
            raise OSError(errno.EFBIG, "The note is too long")
        try:
            _write(self._note_path, content)
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove_note()
            raise
        self.note, self._is_kept = note, True

    def _note_text(self, note: str, end: list[int] | None) -> bytes:
        """Return the content of the note's file.

        It identifies the partial file by its inode. ``size`` is how long the file was when the note
        was written. ``end`` is its size (bytes) and the time of its last change (ns), if the run
        has ended in order. After a kill it is None.
        """
        found = os.fstat(self._lock)
        content = {"kind": _KIND, "note": note, "inode": found.st_ino, "size": found.st_size}
        return json.dumps(content | {"end": end}).encode("ascii")

    def _rewrite_note(self, end: list[int] | None) -> None:
        """Change the end in the note. If that fails, a later run may start at byte 0."""
        if self.note is None:
            return
        with (
            contextlib.suppress(OSError),
            DescriptorFile(os.open(self._note_path, os.O_WRONLY | _OPEN_FLAGS)) as file,
        ):
            length = os.fstat(file.fileno()).st_size
            file.write(self._note_text(self.note, end).ljust(length))

    def disown(self) -> None:
        """Drop the note, so that no later run resumes the content. That of this run stays.

        Raises:
            OSError: The note can't be removed.
        """
        if not self._is_resumed:
            self.forget()
            return
        self._remove_note()
        self.note, self._is_kept = None, False

    def forget(self) -> None:
        """Drop the note, then the content.

        In this order a kill in between leaves no note whose content is gone.
        """
        self._remove_note()
        self.note, self.size, self._is_kept = None, 0, False
        os.ftruncate(self._lock, 0)
        os.lseek(self._lock, 0, os.SEEK_SET)
        self._is_resumed = True

    def abandon(self) -> None:
        """Close the descriptors in a forked child, which would keep the parent's lock."""
        os.close(self._lock)
        self._lock = -1
        with contextlib.suppress(AttributeError, OSError):
            self.file.close()

    def _drop_unless_resumed(self) -> None:
        """Drop the content of an earlier run, unless :meth:`taken_up` was called."""
        if not self._is_resumed:
            self.forget()

    def publish(self) -> None:
        """Remove the note, and rename the file to its target."""
        if not _is_at(self._path, os.fstat(self._lock)):
            raise OSError(errno.ESTALE, "The partial file was taken away", self._path)
        note, self.note = self.note, None
        try:
            # First: if a kill came after the file had its name, nobody would remove the note.
            with contextlib.suppress(OSError):
                self._remove_note()
            os.replace(self._path, self._target)
        except BaseException:
            # Without a note a later run begins at byte 0. What failed here matters more.
            with contextlib.suppress(OSError):
                if note is not None and _is_at(self._path, os.fstat(self._lock)):
                    self._write_note(note)
            raise
        self._unlock()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            found = os.fstat(self._lock)
            if self._is_kept and found.st_size:
                if self._is_resumed:
                    self._rewrite_note([found.st_size, found.st_mtime_ns])
            elif _is_at(self._path, found):
                os.unlink(self._path)
                self._remove_note()
        self._unlock()

    def _unlock(self) -> None:
        if _held.pop(self._lock, None) is not None:
            # close() alone would not release it while a child that was just forked has the file
            # open.
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def _open(self) -> int:
        """Open and lock the file."""
        for _ in range(_OPEN_TRIES):
            is_new = False
            try:
                try:
                    descriptor = os.open(self._path, os.O_RDWR | _OPEN_FLAGS)
                except FileNotFoundError:
                    descriptor = _create(self._path, os.O_RDWR, self._mode)
                    is_new = True
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in _FOREIGN_FILE:
                    raise
                self._delete()
                continue
            if self._is_locked(descriptor, is_new):
                self._is_kept = not is_new
                return descriptor
        raise BlockingIOError(errno.EAGAIN, "The partial file is in use", self._path)

    def _is_locked(self, descriptor: int, is_new: bool) -> bool:
        """Lock an open file. Close it and return False if its path now has another file."""
        # Registered before it is locked: a fork in between would leave the child with the lock.
        self._lock = descriptor
        _held[descriptor] = self
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            # If the path has another file or none, the former owner of the lock has renamed or
            # removed this one.
            if _is_at(self._path, found):
                if _is_ours(found):
                    return True
                self._delete()
        except BaseException as error:
            # On a file system without locks, remove the empty file. If another download has the
            # lock, that download removes the file.
            if is_new and not isinstance(error, BlockingIOError):
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._unlock()
            raise
        self._unlock()
        return False

    def _drop_empty(self) -> None:
        """Remove the file that open() may have created just before an interrupt."""
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            # Another download that has the lock needs the file.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            if not found.st_size and _is_at(self._path, found):
                os.unlink(self._path)

    def _delete(self) -> None:
        self._remove_note()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _find_note(self) -> None:
        """Read the note of an earlier run. Drop the content if the note is missing or invalid."""
        note = self._read_note()
        size = os.lseek(self._lock, 0, os.SEEK_END)
        self._is_kept = (
            note is not None
            and note["inode"] == os.fstat(self._lock).st_ino
            and size >= max(note["size"], 1)
            and note["end"] in (None, [size, os.fstat(self._lock).st_mtime_ns])
        )
        if note is not None and self._is_kept:
            self.note, self.size = note["note"], size
        else:
            self.forget()

    def _read_note(self) -> dict[str, Any] | None:
        """Return the fields of the note; None if there is no valid note.

        Raises:
            OSError: A failure, such as EMFILE, that says nothing about the note itself.
        """
        try:
            descriptor = os.open(self._note_path, os.O_RDONLY | _OPEN_FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _FOREIGN_FILE:
                return None
            raise
        try:
            if not _is_ours(os.fstat(descriptor)):
                return None
            content: Any = json.loads(os.read(descriptor, _LONGEST_NOTE))
        except (ValueError, RecursionError):
            return None
        finally:
            os.close(descriptor)
        is_valid = (
            isinstance(content, dict)
            and content.get("kind") == _KIND
            and all(type(content.get(name)) is kind for name, kind in _NOTE_FIELDS.items())
            and "end" in content
        )
        return content if is_valid else None

    def _remove_note(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._note_path)


def _is_at(path: str, found: os.stat_result) -> bool:
    """Return whether a path has a file that was found elsewhere."""
    try:
        return os.path.samestat(found, os.lstat(path))
    except FileNotFoundError:
        return False


class _PartialFile(DescriptorFile):
    """Calls a function before the first write.

    This is done here and not in the writer's ``append()``, because a subclass of the writer may
    override that method and write to the file object itself.
    """

    def __init__(self, descriptor: int, before: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._before: Callable[[], None] | None = before

    def write(self, buffer: Any) -> int:
        """Write bytes.

        Returns:
            How many bytes were written. It may be fewer than the buffer has.

        Raises:
            OSError: The bytes can't be written.
        """
        if self._before is not None:
            self._before()
            self._before = None
        return super().write(buffer)


# The locked partial files of this process, by descriptor. flock() locks the open file description,
# which a forked child shares. So a child must close these descriptors, or it would keep the locks
# until it exits.
_held: dict[int, Partial] = {}


def _abandon() -> None:
    for partial in _held.values():
        partial.abandon()
    _held.clear()


os.register_at_fork(after_in_child=_abandon)


def _create(path: str, flags: int, mode: int | None) -> int:
    """Create a file. The umask may clear some of the permission bits that were given."""
    return os.open(path, flags | _CREATE_FLAGS, _ANY_MODE if mode is None else mode)


def _close_lost(path: str) -> None:
    """Close the descriptor of a file that open() returned just before an interrupt (Linux)."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}") == path:
                    os.close(int(name))


def _write(path: str, content: bytes) -> None:
    """Create a small file with mode 0600, and write all of its content."""
    with DescriptorFile(os.open(path, os.O_WRONLY | _CREATE_FLAGS, 0o600)) as file:
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, "The note was written only in part")


def _set_mode(descriptor: int, mode: int | None) -> None:
    """Set the permission bits if they differ. Ignore a file system that refuses it."""
    if mode is None or os.fstat(descriptor).st_mode & 0o7777 == mode:
        return
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, mode)


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
