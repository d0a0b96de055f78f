"""Tests of fetching a part of a file."""

import pytest

from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.http.part import PAUSE, delay


@pytest.mark.parametrize(
    ("failures", "retry_after", "seconds"),
    [
        (0, None, 0),
        (0, 9.0, 0),
        (1, None, 0),
        (1, 9.0, 9),
        (2, None, PAUSE),
        (4, None, 4 * PAUSE),
        (4, 9.0, 9),
        (2, PAUSE / 2, PAUSE),
    ],
)
def test_delay(failures, retry_after, seconds):
    """The second failure costs a pause, each further one twice as much, or what the server asks."""
    error = DownloadFailed("busy")
    error.retry_after = retry_after
    assert delay(error, failures) == seconds
