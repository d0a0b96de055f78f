"""The content fetched so far, and the writer and validations that have received it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .. import redact
from ..error import DownloadFailed
from ..validation import Validation, can_reset

if TYPE_CHECKING:
    from ..writer import Writer


class Content:
    """The bytes that the writer and the validations have received.

    More bytes may be appended only if the writer, its open file and the validations are the same.
    The protocol knows which version of the content it is (URL, validator, coding, size).

    The object outlives a run, so that the next run knows which validations it must reset.

    Attributes:
        writer (Writer | None): The writer that has the bytes.
        validations (Sequence[Validation]): The validations that have processed them.
        position (int): The number of bytes that all of these have.
        received (int): The number of bytes fetched. Larger than ``position`` if a buffer failed.
        is_begun (bool): The writer or a validation may have received bytes.
        is_torn (bool): A buffer failed halfway, so the writer and the validations may have
            different bytes.
        is_mixed (bool): They came from more than one source, so only a digest can tell whether
            they belong together.
        is_wrong (bool): A validation failed, so no later run may resume them.
    """

    # The defaults, to which restart() returns.
    writer: Writer | None = None
    validations: Sequence[Validation] = ()
    position = received = 0
    is_begun = is_torn = is_mixed = is_wrong = False
    # The open file of the writer. If the writer has opened another one, the bytes are gone.
    _file: object = None

    def __init__(self) -> None:
        """Start with no bytes."""
        # Asked often: an attribute of the object is found sooner than one of its class.
        self.is_begun = False
        self.position = 0

    def belongs_to(self, writer: Writer | None, validations: list[Validation]) -> bool:
        """Return whether exactly this writer and these validations have all the bytes.

        Args:
            writer: The writer.
            validations: The validations.
        """
        return (
            not self.is_torn
            and self.writer is writer
            and self.validations == validations
            and (writer is None or (writer.is_open and getattr(writer, "fp", None) is self._file))
        )

    def take(self, buffer: bytes, writer: Writer | None, validations: list[Validation]) -> int:
        """Pass the next bytes to the writer, then to the validations.

        Args:
            buffer: The bytes.
            writer: The writer; None if it has the bytes already.
            validations: The validations.

        Returns:
            The length of the buffer (bytes).

        Raises:
            DownloadFailed: The writer failed.
            ValidationError: A validation failed.
        """
        size = len(buffer)
        self.is_torn = True
        self.received = self.position + size
        if writer is not None:
            try:
                writer.append(buffer)
            except OSError as error:
                raise unwritable(writer, error) from error
        for validation in validations:
            validation.update(buffer)
        self.position = self.received
        self.is_torn = False
        return size

    def begin(self, writer: Writer | None, validations: list[Validation]) -> None:
        """Set the writer and the validations that are about to receive the first bytes.

        Args:
            writer: The writer, open.
            validations: The validations.
        """
        self.writer, self.validations = writer, validations
        self._file = None if writer is None else writer.fp
        self.is_begun = True

    def can_restart(self, writer: Writer | None, validations: list[Validation]) -> bool:
        """Return whether :meth:`restart` is possible.

        A writer or validation that hasn't received bytes needs no reset.

        Args:
            writer: The writer.
            validations: The validations.
        """
        return (writer is None or writer is not self.writer or writer.can_restart()) and all(
            can_reset(type(validation))
            for validation in validations
            if any(validation is seen for seen in self.validations)
        )

    def restart(self, writer: Writer | None, validations: list[Validation]) -> None:
        """Restart the writer and reset the validations, for new content from byte 0.

        No other method does this.

        Args:
            writer: The writer.
            validations: The validations.

        Raises:
            DownloadFailed: The writer can't restart.
        """
        self.is_torn = True
        if writer is not None and writer is self.writer:
            try:
                writer.restart()
            except OSError as error:
                raise unwritable(writer, error) from error
        reset(validations)
        vars(self).clear()

    def replay(self, writer: Writer, validations: list[Validation], size: int) -> Iterator[bytes]:
        """Pass the partial content of an earlier run to the validations.

        Args:
            writer: The writer, open.
            validations: The validations.
            size: The largest buffer to read (bytes).

        Yields:
            Each buffer, after the validations have processed it.

        Raises:
            OSError: The partial content can't be read.
            ValidationError: A validation failed.
        """
        self.begin(writer, validations)
        for buffer in writer.replay(size):
            self.take(buffer, None, validations)
            yield buffer


def can_restart(writer: Writer | None, validations: list[Validation]) -> bool:
    """Return whether a writer and validations can start again once they have received bytes.

    Args:
        writer: The writer, open.
        validations: The validations.
    """
    return (writer is None or writer.can_restart()) and all(map(can_reset, map(type, validations)))


def reset(validations: list[Validation]) -> None:
    """Reset those validations that can be reset.

    Args:
        validations: The validations.
    """
    for validation in validations:
        if can_reset(type(validation)):
            validation.reset()


def unwritable(writer: Writer, error: OSError) -> DownloadFailed:
    """Create the error for a writer that failed.

    Args:
        writer: The writer.
        error: The error that it raised.
    """
    # The caller may have passed a URL as the path by mistake. Hide its password.
    redact.exception(error)
    reason = error.strerror or str(error) or type(error).__name__
    failed = DownloadFailed(f"can't write to {redact.text(str(writer))}: {reason}")
    failed.local = True
    return failed
