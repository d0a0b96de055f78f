"""Writers: they store the content of a download in a file, a file object or memory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from . import redact
from .settings import copied
from .storage.staging import Partial, Stage, Temporary, sync_folder

StrPath = str | os.PathLike[str]


class Writer:
    """Writes to a file object. The base class of all writers.

    ``open()`` prepares for writing, ``append()`` writes, ``close()`` publishes the content, and
    ``discard()`` drops it. A ``with`` block calls ``open()``, and at its end ``close()``; if an
    exception leaves the block, it calls ``discard()`` instead.

    Writing begins at the current position of the caller's file object, or at its end if it was
    opened in append mode. To restart, the writer truncates the file object, but never removes bytes
    that others wrote. It can't restart if other data follows its own, or if the file object can't
    seek. A download that fails after its first bytes can't retry from byte 0 then.

    Attributes:
        fp (IO[bytes] | None):
            The file object that the writer writes to.
        resume (bool):
            If the run fails, the writer keeps the partial content for the next run. The download
            then passes a note on the content to :meth:`remember`.
    """

    resume = False
    fp: IO[bytes] | None = None
    # The file object of the caller, who closes it.
    _given: IO[bytes] | None = None
    _given_is_open = False
    # The part of the caller's file object that holds our content. None before open(), and if the
    # file object can't seek.
    _section: _Section | None = None

    def __init__(self, fp: IO[bytes] | None = None) -> None:
        """Wrap a file object of the caller.

        Args:
            fp: A file object, open for writing bytes. The writer doesn't close it. None for a
                subclass that opens a file object itself.
        """
        self.fp = self._given = fp

    @property
    def is_open(self) -> bool:
        """Whether the writer is between ``open()`` and ``close()`` or ``discard()``."""
        if self.fp is None or getattr(self.fp, "closed", False):
            return False
        return self.fp is not self._given or self._given_is_open

    def open(self) -> None:
        """Prepare for writing.

        Raises:
            OSError: The file can't be opened, or the earlier content can't be truncated.
        """
        if self._given is None:
            return
        if self._section is not None:
            self._section.cut()
        elif _can_seek(self._given):
            self._section = _Section(self._given)
        self.fp, self._given_is_open = self._given, True

    def append(self, buffer: bytes) -> int:
        """Write the next bytes of the content.

        Args:
            buffer: The bytes.

        Returns:
            The number of bytes written, which is always the length of the buffer.

        Raises:
            OSError:
                The bytes can't be written.
            ValueError:
                The writer isn't open.
        """
        if self.fp is None:
            raise ValueError(f"{type(self).__name__} must be opened before it is written to")
        written, size = self.fp.write(buffer), len(buffer)
        # A raw file may write only a part. An object that isn't a file may return None.
        while written is not None and written < size:
            more = self.fp.write(memoryview(buffer)[written:])
            if not more:
                raise OSError(errno.EIO, "The file object wrote only a part of the content")
            written += more
        if self._section is not None:
            self._section.size += size
        return size

    def truncate(self) -> None:
        """Drop the content written since ``open()``, and continue at byte 0.

        Raises:
            OSError: The file object can't seek or truncate, or other data follows the content.
        """
        if self.fp is None:
            raise io.UnsupportedOperation(f"{type(self).__name__} can't start again")
        if self._section is not None:
            self._section.cut()
        else:
            self.fp.seek(0)
            self.fp.truncate()

    def is_missing(self) -> bool:
        """Whether the result of an earlier download is known to be gone."""
        return False

    def existing(self, size: int, block: int) -> Iterator[bytes]:
        """Read the content that an earlier download has left.

        Args:
            size:
                The size that it must have (bytes).
            block:
                The largest buffer to yield (bytes).

        Raises:
            OSError: There is no content of this size, or it can't be read.
        """
        raise io.UnsupportedOperation(f"{type(self).__name__} keeps no content")

    def can_restart(self) -> bool:
        """Whether :meth:`restart` is possible."""
        fp = self._given if self.fp is None else self.fp
        if fp is not None and not getattr(fp, "closed", False):
            return _can_seek(fp) and (self._section is None or self._section.can_cut())
        # The writer isn't open: it can restart if a subclass has an open() that makes a new file.
        return _defines_below(type(self), "open", "can_restart")

    def restart(self) -> None:
        """Drop the content, and leave the writer open at byte 0.

        Raises:
            OSError: The writer can't restart.
        """
        if not self.can_restart():
            raise io.UnsupportedOperation(f"{type(self).__name__} can't start again")
        if not self.is_open:
            self.open()
        elif _defines_below(type(self), "open", "truncate"):
            # A subclass may wrap the file object in open(), for example with a compressor. That
            # state must be new, too, so truncating the file isn't enough.
            self.discard()
            self.open()
        else:
            self.truncate()

    def recall(self) -> str | None:
        """Return the note on the partial content of an earlier run; None if there is none."""
        return None

    def remember(self, note: str | None) -> None:
        """Store a note on the content, with which a later run can resume it.

        Args:
            note:
                A text that identifies the version of the content. None if the content can't be
                resumed.
        """

    def replay(self, size: int) -> Iterator[bytes]:
        """Read the partial content of an earlier run.

        Args:
            size: The largest buffer to yield (bytes).
        """
        return iter(())

    def close(self) -> None:
        """Publish the content. Does nothing if the writer isn't open.

        Raises:
            OSError: The buffered bytes can't be written.
        """
        fp, self.fp = self.fp, None
        if fp is None:
            return
        if fp is self._given:
            flush = getattr(fp, "flush", None)
            if flush is not None:
                flush()
        else:
            fp.close()

    def discard(self) -> None:
        """Drop the content instead of publishing it. Does nothing if the writer isn't open."""
        fp, self.fp = self.fp, None
        if fp is None:
            return
        with contextlib.suppress(OSError):
            if fp is not self._given:
                fp.close()
            elif self._section is not None:
                self._section.cut()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __copy__(self) -> Self:
        """Return a closed writer with the same target. It shares only the caller's file object."""
        clone = type(self).__new__(type(self))
        for name, value in vars(self).items():
            clone.__dict__[name] = value if value is self._given else copied(value)
        clone.fp, clone._given_is_open, clone._section = self._given, False, None
        return clone

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same as ``copy.copy()``: a file object can't be copied."""
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a closed writer with the same target, for pickle.

        Raises:
            TypeError: The writer has a file object of the caller, which can't be pickled.
        """
        if self._given is not None:
            raise TypeError(
                f"{type(self).__name__} can't be pickled: it writes to a file object of this "
                "process; use a FileWriter"
            )
        return vars(self.__copy__())

    def __str__(self) -> str:
        return type(self).__name__


class _Section:
    """The part of the caller's file object that the writer has written.

    Attributes:
        size (int): The length of the part (bytes).
    """

    def __init__(self, fp: IO[bytes]) -> None:
        """Begin at the current position, or at the end of a file that is open in append mode."""
        self._fp = fp
        self._appends = _appends(fp)
        end = self._end()
        self._start = end if self._appends and end is not None else fp.tell()
        self._first_end = end
        self.size = 0

    def can_cut(self) -> bool:
        """Whether truncating removes only bytes that this writer wrote."""
        end = self._end()
        if end is None:
            return False
        # A subclass may write to the file object without append(), so ``size`` may be too small.
        # If the file ended where the section begins, all that follows is ours, except in append
        # mode, where other processes may append, too.
        return (
            end == self._start + self.size
            or self._is_untouched(end)
            or (not self._appends and self._first_end == self._start)
        )

    def cut(self) -> None:
        """Truncate the file object to where the section begins, and seek there.

        Raises:
            OSError: That would remove data of others.
        """
        if not self.can_cut():
            raise OSError(errno.ESTALE, "The content can't be truncated: other data follows it")
        if not self._is_untouched(self._end()):
            self._fp.seek(self._start)
            self._fp.truncate()
        self.size = 0

    def _is_untouched(self, end: int | None) -> bool:
        """Whether nothing was written yet. Data after the start then belongs to the caller."""
        is_at_start = self._appends or self._fp.tell() == self._start
        return self.size == 0 and end == self._first_end and is_at_start

    def _end(self) -> int | None:
        """Return the length of the file object, or None if it can't seek. The position stays."""
        try:
            position = self._fp.tell()
            self._fp.seek(0, os.SEEK_END)
            end = self._fp.tell()
            self._fp.seek(position)
        except (OSError, ValueError):
            return None
        return end


class FileWriter(Writer):
    """Writes a file atomically: its path holds the complete old file or the complete new one.

    The writer writes to a staging file in the same folder, which ``close()`` renames to the path.
    It creates missing folders. If the path is a symbolic link, the writer replaces the file that
    the link points to. The new file gets the permission bits of the old one, where the file system
    allows it, and the staging file never has more; without an old file the umask applies. After
    ``kill -9`` the staging file (``.download-`` and 16 hex digits) may be left behind.

    With ``resume`` a run that fails or is killed leaves a partial file and a note beside the target
    (``.download-….partial`` and ``.download-….note``). The next run resumes the partial file if the
    server still has the same version, and computes digests anew from the disk. If the file system
    has no locks, or the note can't be written, the download works without resume.

    Attributes:
        path (str):
            The path of the file.
        resume (bool):
            Keep the partial content for the next run if this one fails.
        durable (bool):
            ``close()`` calls fsync for the file and its folder before it returns, so that the file
            survives a power cut. Otherwise the operating system writes both to the disk later.
    """

    durable = False
    _stage: Stage | None = None
    # The folders that open() changes, and that close() syncs if ``durable``.
    _folders: tuple[str, ...] = ()

    def __init__(
        self,
        path: StrPath | None = None,
        resume: bool = False,
        durable: bool = False,
    ) -> None:
        """Choose the target. The writer creates no file before ``open()``.

        Args:
            path: The path of the file, absolute or relative to the working directory. None for a
                new name in the working directory, which ``path`` then has. The caller removes that
                file.
            resume: Keep the partial content for the next run if this one fails.
            durable: Wait in ``close()`` until the disk has the file (fsync).

        Raises:
            ValueError: ``resume`` was given without a path.
        """
        super().__init__()
        if resume and path is None:
            raise ValueError("resume: must have a path")
        if path is None:
            path = Path.cwd() / f"download-{secrets.token_hex(8)}"
        self.path = path if type(path) is str else os.fsdecode(path)
        self.resume = resume
        self.durable = durable

    def open(self) -> None:
        """Create missing folders and the staging file.

        Raises:
            OSError: They can't be created, or the path exists and isn't a regular file.
        """
        if self.fp is not None:
            self.discard()
        # Resolve links and relative paths now: the working directory may change before close().
        target, mode = _target(self.path)
        if self.durable:
            self._folders = tuple(_without_entry(os.path.dirname(target)))
        try:
            try:
                stage = self._open_stage(target, mode)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                stage = self._open_stage(target, mode)
        except BaseException:
            self.discard()
            raise
        # Without a buffer of its own: the download already writes in large buffers.
        self.fp = stage.file  # type: ignore[assignment]

    def is_missing(self) -> bool:
        """Whether no file exists at the path."""
        return not os.path.exists(self.path)

    def existing(self, size: int, block: int) -> Iterator[bytes]:
        """Read the file at the path, or the file that a link there points to.

        Args:
            size:
                The size that it must have (bytes).
            block:
                The largest buffer to yield (bytes).

        Raises:
            OSError: There is no regular file of this size, or it can't be read.
        """
        target, mode = _target(self.path)
        if mode is None or os.stat(target).st_size != size:
            raise FileNotFoundError(errno.ENOENT, "There is no file of this size")
        with open(target, "rb", buffering=0) as file:
            while buffer := file.read(block):
                yield buffer

    def restart(self) -> None:
        """Drop the content and its note, and leave the writer open at byte 0.

        Raises:
            OSError: The staging file can't be created or truncated.
        """
        self._forget()
        super().restart()

    def truncate(self) -> None:
        """Drop the content and its note, and continue at byte 0.

        Raises:
            OSError: The staging file can't be truncated.
        """
        self._forget()
        super().truncate()

    def _forget(self) -> None:
        if isinstance(self._stage, Partial):
            self._stage.forget()

    def recall(self) -> str | None:
        """Return the note on the partial content of an earlier run; None if there is none."""
        return None if self._stage is None else self._stage.note

    def remember(self, note: str | None) -> None:
        """Store a note on the content, with which a later run can resume it.

        If the note can't be written, for example on a full disk, a later run starts at byte 0.

        Args:
            note: A text that identifies the version of the content. None if no later run may
                resume it. Then this drops what an earlier run left, unless :meth:`replay` has read
                it to the end.

        Raises:
            OSError: The note or the content can't be dropped.
        """
        if not isinstance(self._stage, Partial):
            return
        if note is None:
            self._stage.disown()
            return
        with contextlib.suppress(OSError):
            self._stage.remember(note)

    def replay(self, size: int) -> Iterator[bytes]:
        """Read the partial content of an earlier run.

        If the caller reads it to the end, the next write appends to it. Otherwise the next write
        drops it and starts at byte 0.

        Args:
            size: The largest buffer to yield (bytes).

        Raises:
            OSError: The partial file can't be read.
        """
        if not isinstance(self._stage, Partial):
            return
        position = 0
        while position < self._stage.size:
            left = self._stage.size - position
            buffer = os.pread(self._stage.file.fileno(), min(size, left), position)
            if not buffer:
                raise OSError(errno.EIO, "The partial file became shorter", self.path)
            position += len(buffer)
            yield buffer
        self._stage.taken_up()

    def close(self) -> None:
        """Rename the staging file to the path.

        Raises:
            OSError:
                The rename failed and the old file stays, or fsync of the folder failed
                (``durable``).
        """
        stage, self._stage = self._stage, None
        if stage is None:
            super().close()
            return
        stage.file.sync = self.durable
        try:
            fp, self.fp = self.fp, None
            if fp is not None:
                fp.close()
            if not stage.file.closed:
                # A subclass has made an ``fp`` of its own, which writes to the file.
                stage.file.close()
            stage.publish()
        except BaseException:
            stage.drop()
            raise
        if self.durable:
            for folder in self._folders:
                sync_folder(folder)

    def discard(self) -> None:
        """Drop the content. An old file at the path stays."""
        stage, self._stage = self._stage, None
        try:
            super().discard()
        finally:
            if stage is not None:
                stage.drop()

    def __copy__(self) -> Self:
        clone = super().__copy__()
        clone._stage = None
        return clone

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with an absolute path: a process that unpickles may work elsewhere."""
        is_absolute = os.path.isabs(self.path)
        path = self.path if is_absolute else os.path.join(os.getcwd(), self.path)
        if type(self).__copy__ is FileWriter.__copy__:
            # The same as below, but without a copy of the writer.
            return {**vars(self), "path": path, "fp": None, "_stage": None}
        return super().__getstate__() | {"path": path}

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        # The caller may have passed a URL as the path by mistake. Hide its password.
        path = redact.text(self.path) if "://" in self.path else self.path
        return f"FileWriter({path!r})"

    def _open_stage(self, target: str, mode: int | None) -> Stage:
        if self.resume:
            # Another download may hold the lock of the partial file, or the file system may have
            # no locks. Download without resume then.
            with contextlib.suppress(OSError):
                # Own it first: an interrupt may come just after it has created its file.
                self._stage = Partial(target, mode)
                self._stage.open()
                return self._stage
        self._stage = Temporary(target, mode)
        self._stage.open()
        return self._stage


if TYPE_CHECKING:
    # With defaults (PEP 696), a class needs no type arguments. Type checkers bring their own
    # typing_extensions; at run time typing has defaults from Python 3.13 on only.
    from typing_extensions import TypeVar

    W_co = TypeVar("W_co", bound=Writer | None, default=Writer | None, covariant=True)
else:
    from typing import TypeVar

    W_co = TypeVar("W_co", covariant=True)


def writer_of(value: Writer | StrPath | None) -> Any:
    """Convert the ``writer`` argument of a download.

    Args:
        value: A writer, the path of a file, or None to store the content nowhere.

    Returns:
        The same writer, a :class:`FileWriter` for the path, or None.

    Raises:
        TypeError: The value is none of these. The message names the argument.
    """
    if value is None or isinstance(value, Writer):
        return value
    if isinstance(value, str | os.PathLike):
        return FileWriter(value)
    raise TypeError(
        f"writer: must be a Writer, the path of a file, or None, not {type(value).__name__}"
    )


class BufferWriter(Writer):
    """Keeps the content in memory. It stays there after the download has closed the writer.

    Attributes:
        limit (int | None):
            The most bytes to keep. Larger content fails the download. None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Start with no content.

        Args:
            limit: The most bytes to keep; None for no limit.
        """
        super().__init__()
        self.limit = limit
        self._content = b""

    def open(self) -> None:
        """Drop the content of an earlier run."""
        self._content = b""
        self.fp = io.BytesIO()

    def append(self, buffer: bytes) -> int:
        """Add the next bytes of the content.

        Args:
            buffer: The bytes.

        Returns:
            The length of the buffer.

        Raises:
            OSError:
                The content is larger than the limit.
            ValueError:
                The writer isn't open.
        """
        if (
            self.limit is not None
            and self.fp is not None
            and self.fp.tell() + len(buffer) > self.limit
        ):
            raise OSError(errno.EFBIG, f"There are more than {self.limit} bytes")
        return super().append(buffer)

    def close(self) -> None:
        """Keep the content for :meth:`getvalue`."""
        if isinstance(self.fp, io.BytesIO):
            self._content = self.fp.getvalue()
        super().close()

    def discard(self) -> None:
        """Drop the content."""
        self._content = b""
        super().discard()

    def getvalue(self) -> bytes:
        """Return the content. While the download runs: the bytes fetched so far."""
        return self.fp.getvalue() if isinstance(self.fp, io.BytesIO) else self._content

    def content(self) -> str:
        """Return the content decoded as UTF-8. U+FFFD replaces bytes that can't be decoded."""
        return self.getvalue().decode("utf-8", "replace")

    def read(self) -> str:
        """Return the same as :meth:`content`."""
        return self.content()

    def __copy__(self) -> Self:
        clone = super().__copy__()
        clone._content = b""
        return clone

    def __repr__(self) -> str:
        return f"BufferWriter({'' if self.limit is None else self.limit})"


def _without_entry(folder: str) -> Iterator[str]:
    """Yield the folders that change when a file in a folder and its missing parents are made."""
    yield folder
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
        yield folder


def _appends(fp: IO[bytes]) -> bool:
    """Whether the file is open in append mode (O_APPEND), where writes ignore the position."""
    try:
        return bool(fcntl.fcntl(fp.fileno(), fcntl.F_GETFL) & os.O_APPEND)
    except (AttributeError, OSError, TypeError, ValueError):
        return False


def _can_seek(fp: IO[bytes]) -> bool:
    try:
        return bool(fp.seekable())
    except (AttributeError, ValueError):
        return False


def _defines_below(cls: type, name: str, other: str) -> bool:
    """Whether a subclass of the class that defines ``other`` defines ``name``."""
    found = [method for base in cls.__mro__ for method in (other, name) if method in vars(base)]
    return found[0] == name


def _target(path: str) -> tuple[str, int | None]:
    """Return the absolute path, links resolved, and the mode of the file there (None: no file)."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, "The path of the file is empty")
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, "The path is that of a folder", path)
    target = path if path[0] == "/" else os.path.join(os.getcwd(), path)
    try:
        found = os.lstat(target)
        if stat.S_ISLNK(found.st_mode):
            target = os.path.realpath(target)
            found = os.lstat(target)
    except FileNotFoundError:
        return target, None
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "The path of the file can't be encoded") from error
    except ValueError as error:
        raise OSError(errno.EINVAL, "The path of the file has a NUL character") from error
    except NotADirectoryError as error:
        raise NotADirectoryError(
            errno.ENOTDIR, "A part of the path is no folder", target
        ) from error
    if stat.S_ISREG(found.st_mode):
        return target, found.st_mode & 0o777
    raise _irreplaceable(target, found.st_mode)


def _irreplaceable(target: str, mode: int) -> OSError:
    """Create the error for a target that exists and isn't a regular file."""
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, "There is a folder at the path", target)
    if stat.S_ISLNK(mode):
        return OSError(errno.ELOOP, "The links at the path form a loop", target)
    return OSError(errno.EEXIST, "There is something other than a file at the path", target)
