"""Tests of fetching parts of a file."""

from datetime import timedelta
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.http import parts
from pulpcore.plugin.download.futures.http.part import PAUSE, Part, delay
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
    """From the second failure on a part waits: twice as long each time, or for its Retry-After."""
    error = DownloadFailed("busy")
    error.retry_after = retry_after
    assert delay(error, failures) == seconds


def test_places(monkeypatch):
    """A connection beside the stream takes a place, and frees it when its part has ended."""
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


@pytest.fixture
def running():
    """A part of the source of the attempt, and one of a mirror, and the team that fetches them."""
    home, mirror = Mock(is_helper=False), Mock(is_helper=True)
    team = Team([home, mirror], Mock(), 2, 1)
    found = [Part(0, 9, Mock(), home), Part(9, 18, Mock(), mirror)]
    team._running.update(found)
    yield team, *found
    team.close()


def test_silence(running):
    """A mirror's silence counts while another source sends bytes, until the mirror does, too."""
    team, home, mirror = running
    for expected in (0.2, 0.4):
        home.received += 1
        team.measure(0.2, False, ())
        assert (home.quiet, mirror.quiet) == (0, expected)
    mirror.received += 1
    team.measure(0.2, False, ())
    assert (home.quiet, mirror.quiet) == (0.2, 0)
    assert (home.spent, mirror.spent) == (0.2, 0.4)


def test_silence_beside_others(running):
    """A mirror's silence also counts while the stream, or a fetch that just ended, sends bytes."""
    team, home, mirror = running
    team.measure(0.2, True, {home.fetcher})
    assert mirror.quiet == 0.2
    team.measure(0.2, True, {mirror.fetcher})
    assert mirror.quiet == 0.2


def test_silence_of_all(running):
    """A pause of all sources counts against none of them."""
    team, home, mirror = running
    for has_stream in (True, False):
        team.measure(100.0, has_stream, ())
        assert (home.quiet, mirror.quiet, mirror.spent) == (0, 0, 0)


def test_silence_while_others_have_nothing_to_do(running):
    """A mirror's silence counts while the only other source has nothing to do but wait."""
    team, home, mirror = running
    team._running.discard(home)
    team.measure(0.2, True, ())
    assert mirror.quiet == 0
    team.measure(0.2, False, ())
    assert mirror.quiet == 0.2


def test_silence_of_all_mirrors(running):
    """If only mirrors fetch and all are silent, none of them is worse than the others."""
    team, home, mirror = running
    home.fetcher.is_helper = True
    team.measure(0.2, False, ())
    assert (home.quiet, mirror.quiet) == (0.2, 0.2)
    assert (home.is_outdone, mirror.is_outdone) == (False, False)
    for _ in range(2):
        home.received += 1
        team.measure(0.2, False, ())
        assert (home.is_outdone, mirror.is_outdone) == (False, True)
    team.measure(0.2, False, ())
    assert (home.is_outdone, mirror.is_outdone) == (False, True)
    mirror.received += 1
    team.measure(0.2, False, ())
    assert (home.is_outdone, mirror.is_outdone) == (True, False)
    team._running.discard(home)
    team.measure(0.2, False, ())
    assert mirror.is_outdone


def test_silence_of_an_earlier_fetch(running):
    """A part that is fetched again isn't judged by the earlier source's failure."""
    _, part, _ = running
    part.measure(9.0, True)
    part.received = 5
    part.begin(1.0, Mock())
    assert (part.quiet, part.spent, part.seen, part.kept, part.began) == (0, 0, 5, 5, 1)
    assert not part.is_outdone


def test_pause_of_the_writer(monkeypatch):
    """While the download's thread does something else, no mirror's silence counts."""
    reader = Reader(
        Mock(parts=2, BLOCK=1), Mock(position=0), Mock(elapsed=timedelta()), [Mock(total=9)], Mock()
    )
    measured = []
    monkeypatch.setattr(reader._team, "measure", lambda seconds, *_: measured.append(seconds))
    monkeypatch.setattr(reader, "_looked", -1000.0)
    reader._measure(1000.0, ())
    reader._measure(1000.0 + parts._STEP / 4, ())
    assert measured == [parts._STEP, pytest.approx(parts._STEP / 4)]
    reader.close()


@pytest.mark.parametrize("is_outdone", [False, True])
def test_blame_for_silence(is_outdone):
    """A mirror that stalls in a part counts as failed if others were faster meanwhile."""
    attempt, origins = Mock(position=0, source="a"), [Mock(total=9, source=url) for url in "ab"]
    reader = Reader(Mock(parts=2, BLOCK=1), attempt, Mock(elapsed=timedelta()), origins, Mock())
    part = Part(0, 9, Mock(), reader._team.fetchers[1])
    part.received, part.quiet, part.is_outdone = 1, 1000.0, is_outdone
    reader._give_up(part, 1000.0)
    assert [each.source for each in reader._team.fetchers] == ["a"]
    assert attempt.tour.blame.called == is_outdone
    reader.close()


def test_a_bug_beside_a_part_that_was_dropped(monkeypatch):
    """A part that isn't needed any more doesn't hide the parts that ended after it."""
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
