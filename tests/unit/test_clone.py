"""Tests of clones and copies of a download: what they share with it and what they don't."""

import copy
from operator import methodcaller

import pytest
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    BufferWriter,
    Download,
    DownloadError,
    Event,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    SizeValidation,
)
from pulpcore.plugin.download.futures.context import Context, Resource

ACTS = pytest.mark.parametrize(
    "act", [methodcaller("clone"), copy.copy, copy.deepcopy], ids=["clone", "copy", "deepcopy"]
)


class Plugin(HttpDownload):
    """A plugin's download with mutable attributes of its own."""

    __slots__ = ("marks",)

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tags, self.queue, self.meta, self.marks = {1}, bytearray(b"x"), {"a": 1}, [1]


class Nested(Download):
    """Calls a function in the middle of its run."""

    def __init__(self, work):
        super().__init__("nested:", BufferWriter())
        self.work = work

    def _send(self):
        self.work(self)
        self._write(b"content")


class Connections(Resource):
    """A resource that is closed with its context."""

    is_closed = False

    def close(self):
        """Record the close."""
        self.is_closed = True


def mutable(download):
    """Return the mutable attribute values of a download, by name."""
    values = vars(download) | {name: getattr(download, name, None) for name in ("marks",)}
    fixed = str | int | float | bool | bytes | type(None) | tuple
    return {name: value for name, value in values.items() if not isinstance(value, fixed)}


@ACTS
@pytest.mark.parametrize(
    "make",
    [
        lambda: HttpDownload("http://h/", FileWriter("x"), headers={"A": "1"}),
        lambda: FtpDownload("ftp://h/x", BufferWriter()),
        lambda: FileDownload("file:///nope", BufferWriter(), ["/tmp"]),
        lambda: Plugin("http://h/", FileWriter("x")),
    ],
)
def test_nothing_is_shared(make, act):
    """A clone shares no mutable object with its original, except context and attachment."""
    download = make()
    download.attachment = object()
    download.context = Context()
    download.retry = Retry(total=1)
    download.validations.append(SizeValidation(1))
    download.register(Event.SUCCEEDED, print)
    twin = act(download)
    assert type(twin) is type(download)
    ours, theirs = mutable(download), mutable(twin)
    shared = {name for name in ours if theirs.get(name) is ours[name]}
    assert shared == {"attachment"}
    assert twin.context is download.context
    assert set(vars(twin)) - {"reply", "error"} == set(vars(download))
    assert twin.validations == []
    assert Event.SUCCEEDED not in twin.router
    assert Event.SUCCEEDED in download.router


@ACTS
def test_changes_stay_apart(act):
    """Changing a clone's headers, policies or plugin attributes leaves the original unchanged."""
    download = Plugin("http://h/", None, headers={"A": "1"}, user=("me", "word"), timeout=5)
    download.retry = Retry(total=1)
    twin = act(download)
    twin.headers["a"] = "2"
    twin.user.name = "other"
    twin.timeout.read = 7
    twin.retry.total = 9
    for own in (twin.tags, twin.queue, twin.meta, twin.marks):
        own.clear()
    assert download.headers["A"] == "1"
    assert (download.user.name, download.timeout.read, download.retry.total) == ("me", 5, 1)
    assert (download.tags, download.queue, download.meta) == ({1}, bytearray(b"x"), {"a": 1})
    assert download.marks == [1]


def test_error_stays_behind():
    """A clone doesn't inherit the errno of a failed download."""
    download = FileDownload("file:///nothing/there", BufferWriter())
    with pytest.raises(DownloadError):
        download()
    assert download.error
    assert download.clone().error == 0


@pytest.mark.parametrize("fails", [False, True])
def test_own_context_is_closed_by_the_last(fails):
    """An automatic context is closed when the last clone that shares it has ended."""
    seen = []

    def work(download):
        connections = download.context.cache.setdefault("connections", Connections())
        if len(seen) < 3:
            seen.append(connections)
            twin = download.clone()
            assert twin.context is download.context
            if fails:
                twin.register(Event.PREPARED, lambda event: setattr(twin, "writer", 7))
                with pytest.raises(DownloadError):
                    twin()
            else:
                twin()
            assert not connections.is_closed

    original = Nested(work)
    original()
    assert len(set(seen)) == 1
    assert seen[0].is_closed


def test_context_that_was_set_stays_open():
    """Neither a download nor its clone closes a context that the user has set."""
    context = Context()
    connections = context.cache.setdefault("connections", Connections())
    download = Nested(lambda download: None)
    download.context = context
    download()
    download.clone()()
    assert not connections.is_closed
