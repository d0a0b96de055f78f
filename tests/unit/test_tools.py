"""Tests of DownloadMonitor, whose facts always describe the written content."""

import copy
import hashlib
import pickle
import subprocess
import sys
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures import (
    BufferWriter,
    DigestValidation,
    Download,
    DownloadFailed,
    DownloadMonitor,
    Event,
    tools,
)
from pulpcore.plugin.download.futures.engine.protocol import Protocol

ALL = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
MODELS = "pulpcore.app.models"


def facts(content, algorithms=ALL):
    """Return the facts that a monitor must give for a content."""
    digests = {
        name: hashlib.new(name, content, usedforsecurity=False).hexdigest() for name in algorithms
    }
    return {"size": len(content), **digests}


class Parts(Download):
    """A download whose attempts write one part after the other, or raise it if it is an error."""

    resumes = False

    def __init__(self, *attempts):
        super().__init__("test://parts", BufferWriter())
        self.attempts = list(attempts)
        self.register(Event.ERROR, lambda event: setattr(event, "repaired", True))

    def _send(self):
        for part in self.attempts.pop(0):
            if isinstance(part, Exception):
                raise part
            self._write(part)

    _protocol = type("P", (Protocol,), {"can_resume": lambda _, download: download.resumes})


@pytest.fixture(autouse=True)
def no_pulpcore(monkeypatch):
    """Make pulpcore seem not loaded."""
    monkeypatch.delitem(sys.modules, MODELS, raising=False)


def test_update():
    """The facts of a monitor describe the bytes passed to update()."""
    monitor = DownloadMonitor()
    assert monitor.size == 0
    assert monitor.algorithms == ALL == tuple(DigestValidation.ALGORITHMS)
    assert monitor.facts() == facts(b"")
    monitor.update(b"some")
    monitor.update(b"")
    monitor.update(b"thing")
    assert monitor.size == 9
    assert monitor.facts() == facts(b"something")


def test_new_dict():
    """Each call of facts() returns a new dict."""
    monitor = DownloadMonitor()
    monitor.facts()["size"] = 5
    monitor.facts().clear()
    assert monitor.facts() == facts(b"")


@pytest.mark.parametrize("attach", [False, True])
def test_follows(attach):
    """A monitor follows the download that it was created with or attached to."""
    download = Parts([b"a" * 1000, b"b"])
    if attach:
        monitor = DownloadMonitor()
        monitor.update(b"of another file")
        monitor.attach(download)
    else:
        monitor = DownloadMonitor(download)
    download()
    assert monitor.facts() == facts(b"a" * 1000 + b"b")


def test_empty_file():
    """The facts of an empty file are size 0 and the digests of no bytes."""
    download = Parts([])
    monitor = DownloadMonitor(download)
    download()
    assert monitor.facts() == facts(b"")


@pytest.mark.parametrize(
    ("resumes", "attempts", "content"),
    [
        (False, ([b"wrong", DownloadFailed("cut")], [b"right"]), b"right"),
        (True, ([b"first ", DownloadFailed("cut")], [b"rest"]), b"first rest"),
        (False, ([DownloadFailed("refused")], [b"right"]), b"right"),
        (False, ([b"wrong", DownloadFailed("cut")], []), b""),
    ],
    ids=["restarted", "resumed", "nothing yet", "restarted empty"],
)
def test_tried_again(resumes, attempts, content):
    """After a retry the facts describe the content that was written."""
    download = Parts(*attempts)
    download.resumes = resumes
    monitor = DownloadMonitor(download)
    download()
    assert monitor.facts() == facts(content)
    assert download.writer.getvalue() == content


@pytest.mark.parametrize("second", [[b"second"], []], ids=["content", "empty"])
def test_called_again(second):
    """When a download is called again, its monitor starts again, too."""
    download = Parts([b"first"], second)
    monitor = DownloadMonitor(download)
    download()
    download()
    assert monitor.facts() == facts(b"".join(second))


def test_called_again_after_failure():
    """When a failed download is called again, its monitor starts again, too."""
    download = Parts([b"some", DownloadFailed("cut")], [b"all"])
    download.retries = 0
    monitor = DownloadMonitor(download)
    with pytest.raises(DownloadFailed):
        download()
    download()
    assert monitor.facts() == facts(b"all")


def test_attached_again():
    """A monitor attached twice to the same download counts each byte once."""
    download = Parts([b"content"])
    monitor = DownloadMonitor(download)
    monitor.attach(download)
    download()
    assert monitor.facts() == facts(b"content")


def test_attached_to_another():
    """Attaching a monitor to another download detaches it from the first."""
    first, second = Parts([b"first"]), Parts([b"second"])
    monitor = DownloadMonitor(first)
    monitor.attach(second)
    second()
    first()
    assert monitor.facts() == facts(b"second")


def test_attached_after_the_handlers_are_gone():
    """A monitor can be attached although somebody has removed its handlers."""
    first, second = Parts([b"first"]), Parts([b"second"])
    monitor = DownloadMonitor(first)
    first.router.clear()
    monitor.attach(second)
    second()
    assert monitor.facts() == facts(b"second")


def test_two_monitors():
    """Two monitors of one download don't affect each other."""
    download = Parts([b"content"])
    monitors = DownloadMonitor(download), DownloadMonitor(download, ["md5"])
    download()
    assert [monitor.facts() for monitor in monitors] == [
        facts(b"content"),
        facts(b"content", ["md5"]),
    ]


@pytest.mark.parametrize("names", [("sha256",), ["md5", "sha512"], ()])
def test_algorithms_named(names, monkeypatch):
    """The caller may choose a monitor's algorithms and their order."""
    artifact = SimpleNamespace(DIGEST_FIELDS=["sha384"])
    monkeypatch.setitem(sys.modules, MODELS, SimpleNamespace(Artifact=artifact))
    monitor = DownloadMonitor(algorithms=names)
    monitor.update(b"x")
    assert monitor.algorithms == tuple(names)
    assert monitor.facts() == facts(b"x", names)


@pytest.mark.parametrize("names", [["crc32"], ["sha256", "SHA1024"], "sha256"])
def test_unknown_algorithm(names):
    """A monitor refuses an unknown algorithm at once."""
    with pytest.raises(ValueError, match="unknown"):
        DownloadMonitor(algorithms=names)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            SimpleNamespace(
                Artifact=SimpleNamespace(DIGEST_FIELDS=["sha512", "sha384", "sha256", "sha224"])
            ),
            ("sha512", "sha384", "sha256", "sha224"),
        ),
        (SimpleNamespace(Artifact=SimpleNamespace(DIGEST_FIELDS=("sha256",))), ("sha256",)),
        (
            SimpleNamespace(Artifact=SimpleNamespace(DIGEST_FIELDS=frozenset({"md5", "sha1"}))),
            ("sha1", "md5"),
        ),
        (SimpleNamespace(Artifact=SimpleNamespace()), ALL),
        (SimpleNamespace(), ALL),
    ],
)
def test_pulpcore(module, expected, monkeypatch):
    """If pulpcore is loaded, a monitor has exactly the digests of its Artifact."""
    monkeypatch.setitem(sys.modules, MODELS, module)
    monitor = DownloadMonitor()
    monitor.update(b"content")
    assert monitor.algorithms == expected
    assert monitor.facts() == facts(b"content", expected)


def test_pulpcore_is_not_imported():
    """A monitor never imports pulpcore by itself."""
    code = f"""
import sys
from pulpcore.plugin.download.futures import DownloadMonitor
DownloadMonitor()
assert {MODELS!r} not in sys.modules
assert 'django' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_fips(monkeypatch):
    """A monitor computes md5 and sha1 also in FIPS mode, as they aren't used for security."""
    real = hashlib.new

    def new(name, data=b"", *, usedforsecurity=True):
        if usedforsecurity and name in ("md5", "sha1"):
            raise ValueError("disabled for FIPS")
        return real(name, data, usedforsecurity=usedforsecurity)

    def forbidden(*_, **__):
        raise ValueError("disabled for FIPS")

    expected = facts(b"content")
    monkeypatch.setattr(hashlib, "new", new)
    monkeypatch.setattr(hashlib, "md5", forbidden)
    monkeypatch.setattr(hashlib, "sha1", forbidden)
    download = Parts([b"wrong", DownloadFailed("cut")], [b"content"])
    download.validations.append(DigestValidation("md5", expected["md5"]))
    monitor = DownloadMonitor(download)
    download()
    assert monitor.facts() == expected


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_shares_nothing(way):
    """A copied monitor has the same algorithms, follows no download and has seen no bytes."""
    download = Parts()
    monitor = DownloadMonitor(download, ["md5"])
    monitor.update(b"abc")
    other = way(monitor)
    assert (other.size, other.algorithms) == (0, ("md5",))
    other.update(b"x")
    assert monitor.facts() == {"size": 3, "md5": hashlib.md5(b"abc").hexdigest()}
    assert other.facts() == {"size": 1, "md5": hashlib.md5(b"x").hexdigest()}
    other.attach(Parts())
    assert Event.FETCHED in download.router


def test_facts_belong_together():
    """Facts read by another thread always have size and digests of the same bytes."""
    monitor = DownloadMonitor(algorithms=["md5", "sha256"])
    buffer = b"a" * 5000
    done = threading.Event()
    found = []

    def look():
        while not done.is_set():
            found.append(monitor.facts())

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(400):
        monitor.update(buffer)
    done.set()
    thread.join(20)
    for facts in found:
        content = b"a" * facts["size"]
        assert facts["md5"] == hashlib.md5(content).hexdigest()
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()


def test_facts_of_an_update_that_was_interrupted(monkeypatch):
    """After an interrupted update(), facts() doesn't block."""
    monkeypatch.setattr(tools, "_MOMENT", 0)
    monitor = DownloadMonitor(algorithms=["md5", "sha256"])
    monkeypatch.setattr(monitor._collected.digests["sha256"], "update", Mock(side_effect=KeyError))
    with pytest.raises(KeyError):
        monitor.update(b"abc")
    assert monitor.facts()["size"] == 0


def test_attached_in_the_middle():
    """A monitor attached during a transfer gives no facts for that run.

    It gives them for the next run.
    """
    download = Parts([b"abc", b"def"], [b"ghi"])
    monitor = DownloadMonitor(algorithms=["md5"])

    def attach(event):
        if event.offset == 0 and event.buffer == b"abc":
            monitor.attach(download)

    download.register(Event.FETCHED, attach)
    download()
    with pytest.raises(RuntimeError, match="attached while the download ran"):
        monitor.facts()
    download()
    assert monitor.facts() == facts(b"ghi", ["md5"])
