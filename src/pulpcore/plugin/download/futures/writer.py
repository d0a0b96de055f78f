"""Writers: where the content of a download goes."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from .storage.descriptor import DescriptorFile
from .storage.staging import Partial, Stage, Temporary


class Writer:
    """Writes to a file object, and is the base of all writers.

    Between ``open()`` and ``close()`` the content is on its way; ``close()`` publishes it, and
    ``discard()`` drops it. Leaving a ``with`` by an exception discards.

    Attributes:
        fp (IO[bytes] | None): The file object that is written to.
        resume (bool): What is fetched is kept for the next run if this one fails; the writer is to
            take a note then, by :meth:`remember`.
    """

    resume = False
    fp: IO[bytes] | None = None
    # A file object that was given is the caller's: it isn't closed, and it begins where the caller
    # had it.
    _given: IO[bytes] | None = None
    _given_is_open = False
    _given_is_written = False
    _start: int | None = None

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
            OSError: It can't be written to.
        """
        if self._given is None:
            return
        self.fp, self._given_is_open = self._given, True
        if not _can_seek(self.fp):
            return
        if self._start is None:
            self._start = self.fp.tell()
        elif self.fp.tell() != self._start:
            self.truncate()

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
        self._given_is_written = self.fp is self._given
        written = self.fp.write(buffer)
        # A raw file may take only a part. Other objects than files may return nothing at all.
        while written is not None and written < len(buffer):
            more = self.fp.write(memoryview(buffer)[written:])
            if not more:
                raise OSError(errno.EIO, "The file object took only a part of the content")
            written += more
        return len(buffer)

    def truncate(self) -> None:
        """Start again at 0: drop what was written since ``open()``.

        Raises:
            OSError: The file object can neither seek nor truncate.
        """
        if self.fp is None:
            raise io.UnsupportedOperation(f"{type(self).__name__} can't start again")
        self.fp.seek(self._start or 0)
        self.fp.truncate()

    def is_missing(self) -> bool:
        """Whether what an earlier download wrote is known to be gone, so that it must come."""
        return False

    def can_restart(self) -> bool:
        """Whether :meth:`restart` would work."""
        fp = self._given if self.fp is None else self.fp
        if fp is not None and not getattr(fp, "closed", False):
            return _can_seek(fp)
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
            self._given_is_open = self._given_is_written = False
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
        with contextlib.suppress(OSError):
            if fp is not self._given:
                fp.close()
            elif self._given_is_written and _can_seek(fp):
                fp.seek(self._start or 0)
                fp.truncate()
        self._given_is_open = self._given_is_written = False

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
        """Return a writer to the same place that isn't open."""
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone.fp, clone._start = self._given, None
        clone._given_is_open = clone._given_is_written = False
        return clone

    def __str__(self) -> str:
        return type(self).__name__


class FileWriter(Writer):
    """Writes a file; what stands at its path is always the whole old file or the whole new one.

    The content goes to a temporary file in the same folder, which is renamed over the path by
    ``close()`` (contract section 5). Missing folders are made. A link at the path stays, and the
    file behind it is replaced. An existing file keeps its permission bits; a new one has those that
    ``open()`` would give it. After a kill the temporary file (``.download-`` and 16 hex digits) may
    be left behind. There is no fsync: a power cut is not promised against.

    With ``resume`` what a run leaves that fails, or is killed, stays beside the target
    (``.download-….partial`` and ``.note``). The next run goes on with it if the server still has
    the same version; digests are computed again from the disk.

    Attributes:
        path (str): The path of the file.
        resume (bool): What is fetched is kept for the next run if this one fails.
    """

    _stage: Stage | None = None

    def __init__(self, path: str | os.PathLike[str] | None = None, resume: bool = False) -> None:
        """Make a writer.

        Args:
            path: The path of the file, absolute or relative to the working directory. None for a
                new temporary file in the working directory, whose name is in ``path``. Removing it
                is up to you.
            resume: Keep what is fetched for the next run if this one fails.

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
        try:
            self._stage = self._make_stage(target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            self._stage = self._make_stage(target)
        # Unbuffered: the buffers are large, and each is written once.
        self.fp = cast(IO[bytes], DescriptorFile(self._stage.descriptor))
        if mode is not None:
            try:
                os.fchmod(self._stage.descriptor, mode)
            except OSError:
                self.discard()
                raise

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
        return self._stage.note if self._stage is not None and self._stage.size else None

    def remember(self, note: str | None) -> None:
        """Take a note on the content, for a later run to go on with what will be here.

        Args:
            note: What tells the version of the content; None to drop the content.

        Raises:
            OSError: That isn't possible.
        """
        if not isinstance(self._stage, Partial):
            return
        if note is not None:
            self._stage.remember(note)
        elif self._stage.note is not None:
            self._stage.forget()

    def replay(self, size: int) -> Iterator[bytes]:
        """Read what an earlier run left.

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
            buffer = os.pread(self._stage.descriptor, min(size, left), position)
            if not buffer:
                raise OSError(errno.EIO, "The partial file became shorter", self.path)
            position += len(buffer)
            yield buffer

    def close(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: That isn't possible; the old file stays then.
        """
        stage, self._stage = self._stage, None
        try:
            super().close()
            if stage is not None:
                stage.publish()
        except BaseException:
            if stage is not None:
                stage.drop()
            raise

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

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"FileWriter({self.path!r})"

    def _make_stage(self, target: str) -> Stage:
        if self.resume:
            # Where another download writes it, or something is in the way, this does without.
            with contextlib.suppress(OSError):
                return Partial(target)
        return Temporary(target)


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
    return target, _replaceable(target, found.st_mode)


def _replaceable(target: str, mode: int) -> int:
    """The permission bits of a file that is to be replaced."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "There is a folder at the path", target)
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "The links at the path go round in a circle", target)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EEXIST, "There is something other than a file at the path", target)
    return stat.S_IMODE(mode) & 0o777
