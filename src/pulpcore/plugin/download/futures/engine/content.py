"""What is here of the content of a download, and who has seen it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import redact
from ..error import DownloadFailed
from ..validation import Validation, can_reset

if TYPE_CHECKING:
    from ..writer import Writer


class Content:
    """The bytes that a writer and validations have seen.

    The next bytes may be put behind these only for the same writer with the same open file, and the
    same validations. What the bytes are of (URL, validator, coding, total) is the protocol's part.

    It outlives a run, so that the next one knows what it has to start again.

    Attributes:
        writer (Writer | None): The writer that has the bytes.
        validations (list[Validation]): The validations that have seen them.
        position (int): How many there are.
        received (int): How many came, whether or not all of these took them.
        is_begun (bool): Somebody has seen something, if only a part of a buffer.
        is_torn (bool): Writer and validations may not have seen the same bytes.
    """

    __slots__ = (
        "_file",
        "is_begun",
        "is_torn",
        "position",
        "received",
        "validations",
        "writer",
    )

    def __init__(self) -> None:
        """Begin with nothing."""
        self._clear()

    def _clear(self) -> None:
        self.writer: Writer | None = None
        self.validations: list[Validation] = []
        self.position = self.received = 0
        self.is_begun = self.is_torn = False
        # The writer's open file. Another one does not have the bytes.
        self._file: object = None

    def belongs_to(self, writer: Writer | None, validations: list[Validation]) -> bool:
        """Return whether these, and no others, have exactly the bytes that are here.

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

    def take(self, buffer: bytes, writer: Writer | None, validations: list[Validation]) -> None:
        """Hand the next bytes to the writer, then to the validations.

        Args:
            buffer: The bytes.
            writer: The writer; None if it has them.
            validations: The validations.

        Raises:
            DownloadFailed: They can't be written.
            ValidationError: They were refused.
        """
        self.is_torn = True
        self.received = self.position + len(buffer)
        if writer is not None:
            try:
                writer.append(buffer)
            except OSError as error:
                raise unwritable(writer, error) from error
        for validation in validations:
            validation.update(buffer)
        self.position = self.received
        self.is_torn = False

    def begin(self, writer: Writer | None, validations: list[Validation]) -> None:
        """Note who is about to see the first bytes.

        Args:
            writer: The writer, open.
            validations: The validations.
        """
        self.writer, self.validations = writer, validations
        self._file = getattr(writer, "fp", None)
        self.is_begun = True

    def can_restart(self, writer: Writer | None, validations: list[Validation]) -> bool:
        """Return whether :meth:`restart` would work. What has seen nothing needs no reset.

        Args:
            writer: The writer.
            validations: The validations.
        """
        return (writer is None or writer is not self.writer or writer.can_restart()) and all(
            can_reset(validation)
            for validation in validations
            if any(validation is seen for seen in self.validations)
        )

    def restart(self, writer: Writer | None, validations: list[Validation]) -> None:
        """Start again at byte 0: the one operation that does, for all that will see the content.

        Args:
            writer: The writer.
            validations: The validations.

        Raises:
            DownloadFailed: The writer can't.
        """
        self.is_torn = True
        if writer is not None and writer is self.writer:
            try:
                writer.restart()
            except OSError as error:
                raise unwritable(writer, error) from error
        reset(validations)
        self._clear()

    def replay(self, writer: Writer, validations: list[Validation], size: int) -> Iterator[bytes]:
        """Show the validations what the writer has of an earlier run.

        Args:
            writer: The writer, open.
            validations: The validations.
            size: The most bytes to read at a time.

        Yields:
            Each buffer, after the validations have seen it.

        Raises:
            OSError: It can't be read.
            ValidationError: It was refused.
        """
        self.begin(writer, validations)
        for buffer in writer.replay(size):
            self.take(buffer, None, validations)
            yield buffer


def reset(validations: list[Validation]) -> None:
    """Reset those validations that can be reset.

    Args:
        validations: The validations.
    """
    for validation in validations:
        if can_reset(validation):
            validation.reset()


def unwritable(writer: Writer, error: OSError) -> DownloadFailed:
    """Make the error for a writer that failed.

    Args:
        writer: The writer.
        error: What it raised.
    """
    # Somebody may have given a URL for the path.
    redact.exception(error)
    reason = error.strerror or str(error) or type(error).__name__
    return DownloadFailed(f"can't write to {redact.text(str(writer))}: {reason}")
