"""Checks whether the target already has the content, so that nothing needs to be fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..error import DownloadFailed, ValidationError
from ..validation import DigestValidation, SizeValidation, can_reset
from .content import reset
from .run import Run

if TYPE_CHECKING:
    from .subject import Download


def has_content(download: Download, run: Run) -> bool:
    """Return whether all validations accept what the target holds.

    It takes an enforced size and an enforced digest to tell. A file of another size isn't read.

    Args:
        download: The download.
        run: Its run, which has claimed the writer and the validations.

    Raises:
        DownloadFailed: The run was cancelled.
    """
    writer, validations = run.writer, run.validations
    enforced = [validation for validation in validations if validation.enforced]
    sizes = [each.expected for each in enforced if isinstance(each, SizeValidation)]
    is_sure = bool(sizes) and any(isinstance(each, DigestValidation) for each in enforced)
    # If the file is refused, the download must be able to reset the validations.
    if writer is None or not is_sure or not all(map(can_reset, map(type, validations))):
        return False
    try:
        for buffer in writer.existing(sizes[0], download.BLOCK):
            if run.token.reason is not None:
                raise DownloadFailed(download, run.token.reason)
            for validation in validations:
                validation.update(buffer)
        for validation in validations:
            validation()
    except (OSError, ValidationError):
        reset(validations)
        return False
    return True
