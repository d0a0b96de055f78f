"""Writers: where the content of a download goes."""

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
from typing import IO, Any, Self

from . import redact
from .settings import copied
from .storage.staging import Partial, Stage, Temporary, sync_folder

StrPath = str | os.PathLike[str]


class Writer:
    """Writes to a file object, and is the base of all writers.

    Between ``open()`` and ``close()`` the content is on its way; ``close()`` publishes it, and
    ``discard()`` drops it. Leaving a ``with`` by an exception discards.

    A file object that was given is written from where it stands; one that was opened for appending,
    at its end. Only what this writer wrote is ever cut off again. Where something else stands
    behind it, or the end can't be found, it can't start again: a download that breaks fails then.

    Attributes:
        fp (IO[bytes] | None): The file object that is written to.
        resume (bool): What is fetched is kept for the next run if this one fails; the writer is to
            take a note then, by :meth:`remember`.
    """

    resume = False
    fp: IO[bytes] | None = None
    # A file object that was given is the caller's: it isn't closed.
    _given: IO[bytes] | None = None
    _given_is_open = False
    # Where in it the content begins; None until it was opened, and where it can't seek.
    _section: _Section | None = None

    def __init__(self, fp: IO[bytes] | None = None) -> None:
        """Make a writer.

        Args:
            fp: A file object, open for writing bytes. It stays the caller's to close. A subclass
                that opens its own gives none.
        """
        self.fp = self._given = fp

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and neither closed nor discarded since."""
        if self.fp is None or getattr(self.fp, "closed", False):
            return False
        return self.fp is not self._given or self._given_is_open

    def open(self) -> None:
        """Prepare for writing.

        Raises:
            OSError: It can't be written to, or can't start again.
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
            The number of bytes written, which is that of all of them.

        Raises:
            OSError: They can't be written.
            ValueError: The writer isn't open.
        """
        if self.fp is None:
            raise ValueError(f"{type(self).__name__} must be opened before it is written to")
        written = self.fp.write(buffer)
        # A raw file may take only a part. Other objects than files may return nothing at all.
        while written is not None and written < len(buffer):
            more = self.fp.write(memoryview(buffer)[written:])
            if not more:
                raise OSError(errno.EIO, "The file object took only a part of the content")
            written += more
        if self._section is not None:
            self._section.size += len(buffer)
        return len(buffer)

    def truncate(self) -> None:
        """Start again at 0: drop what was written since ``open()``.

        Raises:
            OSError: The file object can neither seek nor truncate, or something else stands behind
                what was written.
        """
        if self.fp is None:
            raise io.UnsupportedOperation(f"{type(self).__name__} can't start again")
        if self._section is not None:
            self._section.cut()
        else:
            self.fp.seek(0)
            self.fp.truncate()

    def is_missing(self) -> bool:
        """Whether what an earlier download wrote is known to be gone, so that it must come."""
        return False

    def can_restart(self) -> bool:
        """Whether :meth:`restart` would work."""
        fp = self._given if self.fp is None else self.fp
        if fp is not None and not getattr(fp, "closed", False):
            return _can_seek(fp) and (self._section is None or self._section.can_cut())
        # Then open() must do it, if it does anything.
        return _defines_below(type(self), "open", "can_restart")

    def restart(self) -> None:
        """Start again at 0, open.

        Raises:
            OSError: That isn't possible.
        """
        if not self.can_restart():
            raise io.UnsupportedOperation(f"{type(self).__name__} can't start again")
        if not self.is_open:
            self.open()
        elif _defines_below(type(self), "open", "truncate"):
            # What a subclass sets up in open() around the file object, such as a compressor, must
            # be set up again.
            self.discard()
            self.open()
        else:
            self.truncate()

    def recall(self) -> str | None:
        """Return the note on what an earlier run left to go on with; None if there is nothing."""
        return None

    def remember(self, note: str | None) -> None:
        """Take a note on the content, for a later run to go on with what will be here.

        Args:
            note: What tells the version of the content; None if it isn't worth keeping.
        """

    def replay(self, size: int) -> Iterator[bytes]:
        """Read what an earlier run left.

        Args:
            size: The most bytes to read at a time.
        """
        return iter(())

    def close(self) -> None:
        """Publish what was written. A writer that isn't open stays as it is.

        Raises:
            OSError: The last bytes can't be written.
        """
        fp, self.fp = self.fp, None
        if fp is None:
            return
        if fp is self._given:
            self._given_is_open = False
            flush = getattr(fp, "flush", None)
            if flush is not None:
                flush()
        else:
            fp.close()

    def discard(self) -> None:
        """Drop what was written: there is nothing to publish any more."""
        fp, self.fp = self.fp, None
        if fp is None:
            return
        self._given_is_open = False
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
        """Return a writer to the same place that isn't open, and shares only the file object."""
        clone = type(self).__new__(type(self))
        for name, value in vars(self).items():
            clone.__dict__[name] = value if value is self._given else copied(value)
        clone.fp, clone._given_is_open, clone._section = self._given, False, None
        return clone

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy: what is written to stays the same."""
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle a writer that isn't open.

        Raises:
            TypeError: A file object that was given can't go to another process.
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
    """What a writer writes into a file object of the caller's.

    Attributes:
        size (int): How much was written (bytes).
    """

    def __init__(self, fp: IO[bytes]) -> None:
        """Begin where the file object stands, or at its end if it was opened for appending."""
        self._fp = fp
        self._appends = _appends(fp)
        end = self._end()
        self._start = end if self._appends and end is not None else fp.tell()
        self._had_end = end
        self.size = 0

    def can_cut(self) -> bool:
        """Whether nothing but what was written would be cut off."""
        end = self._end()
        if end is None:
            return False
        # Whoever writes past append() isn't counted. Behind the start of a file that had ended
        # there can be nothing else, unless others append to it as well.
        return (
            end == self._start + self.size
            or self._is_untouched(end)
            or (not self._appends and self._had_end == self._start)
        )

    def cut(self) -> None:
        """Cut off what was written, and go back to the start.

        Raises:
            OSError: That would cut off something else, too.
        """
        if not self.can_cut():
            raise OSError(
                errno.ESTALE, "what was written can't be taken back: something else is behind it"
            )
        if not self._is_untouched(self._end()):
            self._fp.seek(self._start)
            self._fp.truncate()
        self.size = 0

    def _is_untouched(self, end: int | None) -> bool:
        """Whether nothing was written, so that what is behind the start is the caller's."""
        stands = self._appends or self._fp.tell() == self._start
        return self.size == 0 and end == self._had_end and stands

    def _end(self) -> int | None:
        """Where the file object ends; None if that can't be known. Its position stays."""
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

    The content goes to a temporary file in the same folder, which ``close()`` renames to the path.
    Missing folders are made. A link at the path stays, and the file behind it is replaced.
    An existing file keeps its permission bits, as far as the file system lets us set them; the
    temporary file never has more of them. A new file has the bits that ``open()`` would give it.
    After ``kill -9`` the temporary file (``.download-`` and 16 hex digits) may be left behind.

    With ``resume`` a run that fails, or is killed, leaves what it fetched beside the target
    (``.download-….partial`` and ``.note``). The next run goes on with it if the server still has
    the same version; digests are computed again from the disk. Where the file system has no locks,
    or the note can't be written, the run works without that.

    Attributes:
        path (str): The path of the file.
        resume (bool): What is fetched is kept for the next run if this one fails.
        durable (bool): ``close()`` returns only when the disk has the file and its entry in the
            folder (fsync), so that a power cut loses neither. Without it the operating system
            writes them within seconds.
    """

    durable = False
    _stage: Stage | None = None
    # The folders that get a new entry.
    _folders: tuple[str, ...] = ()

    def __init__(
        self,
        path: StrPath | None = None,
        resume: bool = False,
        durable: bool = False,
    ) -> None:
        """Make a writer.

        Args:
            path: The path of the file, absolute or relative to the working directory. None for a
                new temporary file in the working directory, whose name is in ``path``. Removing it
                is up to you.
            resume: Keep what is fetched for the next run if this one fails.
            durable: Have the file survive a power cut, at the price of waiting for the disk.

        Raises:
            ValueError: To resume there must be a path.
        """
        super().__init__()
        if resume and path is None:
            raise ValueError("resume: must have a path")
        if path is None:
            path = Path.cwd() / f"download-{secrets.token_hex(8)}"
        self.path = os.fsdecode(path)
        self.resume = resume
        self.durable = durable

    def open(self) -> None:
        """Make missing folders and the file to write to.

        Raises:
            OSError: That isn't possible, or something stands at the path that is no regular file.
        """
        if self.is_open:
            self.discard()
        # Links are followed now, and relative paths made absolute: the working directory may change
        # meanwhile.
        target, mode = _target(self.path)
        folder = target.rpartition("/")[0].rstrip("/") or "/"
        self._folders = (folder,)
        try:
            self._stage = self._make_stage(target, mode)
        except FileNotFoundError:
            if self.durable:
                self._folders = tuple(_without_entry(folder))
            os.makedirs(folder, exist_ok=True)
            self._stage = self._make_stage(target, mode)
        # Unbuffered: the buffers are large, and each is written once.
        self.fp = self._stage.file  # type: ignore[assignment]

    def is_missing(self) -> bool:
        """Whether nothing stands at the path."""
        return not os.path.exists(self.path)

    def restart(self) -> None:
        """Start again at 0, open.

        Raises:
            OSError: That isn't possible.
        """
        self.remember(None)
        super().restart()

    def truncate(self) -> None:
        """Start again at 0.

        Raises:
            OSError: That isn't possible.
        """
        self.remember(None)
        super().truncate()

    def recall(self) -> str | None:
        """Return the note on what an earlier run left to go on with; None if there is nothing."""
        return None if self._stage is None else self._stage.note

    def remember(self, note: str | None) -> None:
        """Take a note on the content, for a later run to go on with what will be here.

        Where it can't be written, such as on a full disk, the content isn't kept for a later run.

        Args:
            note: What tells the version of the content; None to drop the content.

        Raises:
            OSError: The content can't be dropped.
        """
        if not isinstance(self._stage, Partial):
            return
        if note is None:
            self._stage.forget()
            return
        with contextlib.suppress(OSError):
            self._stage.remember(note)

    def replay(self, size: int) -> Iterator[bytes]:
        """Read what an earlier run left. What is written after its end is put behind it.

        Unless it was read to its end, the next write starts at byte 0.

        Args:
            size: The most bytes to read at a time.

        Raises:
            OSError: It can't be read.
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
        """Put the file in its place.

        Raises:
            OSError: That isn't possible, and the old file stays; or ``durable`` could not be kept
                to.
        """
        stage, self._stage = self._stage, None
        if stage is None:
            super().close()
            return
        stage.file.sync = self.durable
        try:
            super().close()
            stage.publish()
        except BaseException:
            stage.drop()
            raise
        if self.durable:
            for folder in self._folders:
                sync_folder(folder)

    def discard(self) -> None:
        """Drop what was written. What stands at the path stays."""
        stage, self._stage = self._stage, None
        super().discard()
        if stage is not None:
            stage.drop()

    def __copy__(self) -> Self:
        clone = super().__copy__()
        clone._stage = None
        return clone

    def __getstate__(self) -> dict[str, Any]:
        """Pickle by the path, made absolute: another process may have another working directory."""
        return super().__getstate__() | {"path": os.path.join(os.getcwd(), self.path)}

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        # Somebody may have given a URL for the path.
        path = redact.text(self.path) if "://" in self.path else self.path
        return f"FileWriter({path!r})"

    def _make_stage(self, target: str, mode: int | None) -> Stage:
        if self.resume:
            # Where another download writes it, or something is in the way, this does without.
            with contextlib.suppress(OSError):
                return Partial(target, mode)
        return Temporary(target, mode)


def writer_of(value: Writer | StrPath | None) -> Writer | None:
    """Make a writer of what a download was given for it.

    Args:
        value: A writer, which is taken as it is, the path of a file, or None for nowhere.

    Raises:
        TypeError: It is none of these; the message names the argument.
    """
    if value is None or isinstance(value, Writer):
        return value
    if isinstance(value, str | os.PathLike):
        return FileWriter(value)
    raise TypeError(
        f"writer: must be a Writer, the path of a file, or None, not {type(value).__name__}"
    )


class BufferWriter(Writer):
    """Keeps the content in memory, also after the download has closed the writer.

    Attributes:
        limit (int | None): The most bytes that are kept; one more is an error.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Make a writer.

        Args:
            limit: The most bytes to keep; None for no limit.
        """
        super().__init__()
        self.limit = limit
        self._content = b""

    def open(self) -> None:
        """Start with no content."""
        self._content = b""
        self.fp = io.BytesIO()

    def append(self, buffer: bytes) -> int:
        """Keep the next bytes.

        Args:
            buffer: The bytes.

        Returns:
            The number of bytes.

        Raises:
            OSError: There are more than the limit allows.
            ValueError: The writer isn't open.
        """
        if (
            self.limit is not None
            and self.fp is not None
            and self.fp.tell() + len(buffer) > self.limit
        ):
            raise OSError(errno.EFBIG, f"There are more than {self.limit} bytes")
        return super().append(buffer)

    def close(self) -> None:
        """Make the content stay."""
        if isinstance(self.fp, io.BytesIO):
            self._content = self.fp.getvalue()
        super().close()

    def discard(self) -> None:
        """Drop the content."""
        self._content = b""
        super().discard()

    def getvalue(self) -> bytes:
        """Return the content as it came, also while it comes."""
        return self.fp.getvalue() if isinstance(self.fp, io.BytesIO) else self._content

    def content(self) -> str:
        """Return the content as text: UTF-8, undecodable bytes replaced. '' if nothing came."""
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
    """The folders that get a new entry when a file and missing folders above it are made."""
    yield folder
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
        yield folder


def _appends(fp: IO[bytes]) -> bool:
    """Whether the system puts each write at the end of the file, wherever the position is."""
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
    """Whether a method is defined by a class below the one that defines another method."""
    found = [method for base in cls.__mro__ for method in (other, name) if method in vars(base)]
    return found[0] == name


def _target(path: str) -> tuple[str, int | None]:
    """What a path means now, and the permission bits of the file there; None if there is none."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, "The path of the file is empty")
    if "\0" in path:
        raise OSError(errno.EINVAL, "The path of the file has a NUL character")
    if not path.isascii():
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            raise OSError(errno.EILSEQ, "The path of the file can't be encoded") from error
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, "The path is that of a folder", path)
    target = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    try:
        found = os.lstat(target)
        if stat.S_ISLNK(found.st_mode):
            target = os.path.realpath(target)
            found = os.lstat(target)
    except FileNotFoundError:
        return target, None
    except NotADirectoryError as error:
        raise NotADirectoryError(
            errno.ENOTDIR, "A part of the path is no folder", target
        ) from error
    if stat.S_ISREG(found.st_mode):
        return target, found.st_mode & 0o777
    raise _irreplaceable(target, found.st_mode)


def _irreplaceable(target: str, mode: int) -> OSError:
    """The error for what stands at a path and is no file."""
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, "There is a folder at the path", target)
    if stat.S_ISLNK(mode):
        return OSError(errno.ELOOP, "The links at the path go round in a circle", target)
    return OSError(errno.EEXIST, "There is something other than a file at the path", target)
