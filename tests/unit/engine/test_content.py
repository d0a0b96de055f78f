"""Tests of what the engine knows of the content that is here."""

import pytest

from pulpcore.plugin.download.futures import BufferWriter, DownloadFailed, SizeValidation
from pulpcore.plugin.download.futures.engine.content import Content


class Stuck(BufferWriter):
    """A writer that can't start again."""

    def truncate(self):
        """Fail."""
        raise OSError("stuck")


def test_restart_that_fails():
    """Content whose writer couldn't start again isn't resumed: nobody knows what the writer has."""
    writer, validations, content = Stuck(), [SizeValidation(3)], Content()
    with writer:
        content.begin(writer, validations)
        content.take(b"abc", writer, validations)
        assert content.belongs_to(writer, validations)
        with pytest.raises(DownloadFailed, match="stuck"):
            content.restart(writer, validations)
        assert not content.belongs_to(writer, validations)
