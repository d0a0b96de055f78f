"""Partial content of an earlier run, and the note that identifies its version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .content import can_restart, unwritable

if TYPE_CHECKING:
    from ..writer import Writer
    from .content import Content
    from .protocol import Protocol
    from .run import Run
    from .subject import Download


def remember(writer: Writer | None, note: str | None) -> None:
    """Have a writer keep the content for a later run, if it has ``resume=True``.

    Args:
        writer: The writer.
        note: A text that identifies the version of the content; None if it is unknown.

    Raises:
        DownloadFailed: The note can't be written.
    """
    if writer is not None and writer.resume:
        try:
            writer.remember(note)
        except OSError as error:
            raise unwritable(writer, error) from error


def recall(
    writer: Writer,
    note: str,
    download: Download,
    run: Run,
    protocol: Protocol,
    content: Content,
    may_recall: bool,
) -> Iterator[bytes]:
    """Resume the partial content of an earlier run if possible. Otherwise drop it.

    Args:
        writer: The writer of the run, open.
        note: The note that the writer has kept.
        download: The download.
        run: Its run.
        protocol: What the protocol knows in this run. It judges the note.
        content: Records the bytes.
        may_recall: The attempt may begin after byte 0.

    Yields:
        Each buffer, after the validations have processed it.

    Raises:
        OSError: The content can't be read or dropped.
        ValidationError: A validation refuses the content. The caller can restart.
    """
    # If a validation refuses the partial file, the writer and the validations must be able to
    # restart.
    may_recall = may_recall and can_restart(writer, run.validations)
    if not may_recall or not protocol.recall(download, note):
        writer.truncate()
        return
    for buffer in content.replay(writer, run.validations, download.BLOCK):
        run.token.check()
        yield buffer
    run.can_continue = True
