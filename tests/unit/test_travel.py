"""Tests of downloads that are pickled, as to run them in another process."""

import os
import pickle

import pytest
from executors import Remote
from stubs import Nop

from pulpcore.plugin.download.futures import (
    SSL,
    BufferWriter,
    DigestValidation,
    DownloadMonitor,
    Event,
    FileDownload,
    FtpDownload,
    HttpDownload,
    SizeValidation,
)
from pulpcore.plugin.download.futures.engine.spec import Packer, check, unpack


def travelled(download):
    """Pickle and unpickle a download."""
    return pickle.loads(pickle.dumps(download))


class Slotted(Remote):
    """A download with a slot."""

    __slots__ = ("extra",)


def test_settings_travel(tmp_path, monkeypatch):
    """The settings of a download can be pickled. Relative paths become absolute."""
    monkeypatch.chdir(tmp_path)
    ssl = SSL("ca.pem", "-----BEGIN", "/k.pem", False)
    download = HttpDownload(
        "http://host/a", "new/a", timeout=3, user=("ann", "s3cret"), ssl=ssl, headers={"X": "y"}
    )
    download.retries, download.retry = 7, None
    found = travelled(download)
    assert found.writer.path == os.path.join(tmp_path, "new/a")
    assert (found.url, found.retries, found.retry) == ("http://host/a", 7, None)
    assert (found.timeout, found.user, found.headers) == (
        download.timeout,
        download.user,
        download.headers,
    )
    assert found.ssl == SSL(os.path.join(tmp_path, "ca.pem"), "-----BEGIN", "/k.pem", False)
    assert download.ssl.ca_certificate == "ca.pem"
    assert download.clone().ssl == ssl
    assert SSL(SSL.SYSTEM).portable() == SSL(SSL.SYSTEM)


@pytest.mark.parametrize("headers", [None, {"X-One": "1", "accept": "*/*"}])
def test_headers_travel(headers):
    """The headers of a chunk's downloads keep their case and order, and ignore case there, too."""
    some = [HttpDownload("http://host/a", None, headers=headers) for _ in range(2)]
    ((first, second),) = unpack(Packer().pack([check(download) for download in some]), {})
    assert dict(first[0].headers) == (headers or {})
    assert list(first[0].headers) == list(headers or {})
    first[0].headers["x-one"] = "2"
    assert first[0].headers["X-One"] == "2"
    assert second[0].headers == some[1].headers


def test_what_stays_at_home():
    """Handlers, context, reply and attachment of a download aren't pickled."""
    download = Nop(attachment=lambda: None)
    download.register(Event.PREPARED, lambda event: None)
    download.context.token = object()
    download.reply = object()
    found = travelled(download)
    assert found.attachment is None
    assert found.reply is None
    assert Event.PREPARED not in found.router
    assert not hasattr(found.context, "token")
    assert download.attachment is not None


def test_validations_travel_unfed():
    """Pickled validations have seen no bytes."""
    download = Remote("test://a/bytes/3", None)
    download.validations = [SizeValidation(3), DigestValidation("md5", "0" * 32, enforced=False)]
    download()
    found = travelled(download)
    assert [type(validation) for validation in found.validations] == [
        SizeValidation,
        DigestValidation,
    ]
    assert [validation.expected for validation in found.validations] == [3, "0" * 32]
    assert found.validations[0].actual == 0
    found()
    assert found.validations[0].actual == 3


def test_slots_travel():
    """The slots of a subclass are pickled."""
    download = Slotted("test://a/bytes/3", BufferWriter())
    download.extra = 5
    found = travelled(download)
    assert found.extra == 5
    found()
    assert found.writer.getvalue() == b"xxx"


@pytest.mark.parametrize(
    "download", [FileDownload("file:///a", "/b"), FtpDownload("ftp://host/a", "/b")]
)
def test_each_protocol(download):
    """Downloads of each protocol can be pickled."""
    found = travelled(download)
    assert type(found) is type(download)
    assert (found.url, found.writer.path) == (download.url, "/b")


def test_a_monitor_travels_unfed():
    """A pickled monitor is attached to no download, and has no bytes."""
    monitor = DownloadMonitor(algorithms=["md5"])
    monitor.update(b"abc")
    found = travelled(monitor)
    assert found.algorithms == ("md5",)
    assert found.size == 0
    assert found.facts()["md5"] == DownloadMonitor(algorithms=["md5"]).facts()["md5"]
