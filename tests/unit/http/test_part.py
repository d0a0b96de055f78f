"""Tests of fetching parts of a file."""

from datetime import timedelta
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.http import parts
from pulpcore.plugin.download.futures.http.part import PAUSE, delay
from pulpcore.plugin.download.futures.http.parts import Reader, Team


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


def test_places(monkeypatch):
    """A connection beside the first takes a place, and gives it back when its part has ended."""
    taken = []
    monkeypatch.setattr(parts, "take_place", lambda _, part, hosts: not taken.append(part))
    monkeypatch.setattr(parts, "leave_place", lambda _, part: taken.remove(part))
    ask = Mock(side_effect=DownloadFailed("busy"))
    team = Team([Mock(is_helper=False, trace=None, ask=ask)], Mock(), 2, 1)
    for has_stream in (True, False):
        assert team.has_memory()
        part = team.add(0, 1)
        assert team.start(part, has_stream)
        assert taken == [part] * has_stream
        team.wait(part, 20)
        assert team.collect() == [part]
        assert taken == []
    team.close()


def test_a_bug_beside_a_part_that_was_dropped(monkeypatch):
    """A part that isn't needed any more hides nothing of those that ended after it."""
    download, attempt = Mock(parts=2, BLOCK=1), Mock(position=0)
    reply = Mock(elapsed=timedelta())
    reader = Reader(download, attempt, reply, [Mock(total=9)], Mock())
    team = reader._team
    assert team.has_memory()
    dropped = team.add(0, 1)
    team.drop(dropped)
    broken = team.add(1, 2)
    broken.bug = KeyError("x")
    monkeypatch.setattr(team, "collect", lambda: [dropped, broken])
    with pytest.raises(KeyError):
        next(reader.buffers())
    reader.close()
