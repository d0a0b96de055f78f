"""Tests of the generated demo repository and its server."""

import hashlib
import http.client
import os
import socket
import struct
from urllib.parse import quote, urlsplit

import pytest

from pulpcore.plugin.download.futures.cli import manifest
from pulpcore.plugin.download.futures.cli.repository import Repository, serve


@pytest.fixture(scope="module")
def repository():
    """Serve the generated demo repository."""
    return Repository()


def test_content(repository):
    """The demo repository has a few hundred files of up to 4 MiB, and all match its manifest."""
    entries = list(manifest.parse(repository.manifest))
    sizes = [entry.size for entry in entries]
    assert len(entries) == 300
    assert (min(sizes), max(sizes)) == (0, 4 * 2**20)
    assert 40 * 2**20 < sum(sizes) < 80 * 2**20
    assert len({entry.sha256 for entry in entries}) == len(entries)
    for entry in entries:
        content = repository.get(entry.path)
        assert len(content) == entry.size
        assert hashlib.sha256(content).hexdigest() == entry.sha256


def test_always_the_same(repository):
    """The generated demo repository is identical on every run and machine."""
    digest = "859fd410e2fbbd7ffdc82ff8ac448d783e70739549ee92cc98a9730c679670ad"
    assert hashlib.sha256(repository.manifest).hexdigest() == digest


def test_serve(repository):
    """The demo server keeps a connection alive and serves every file, also with unusual names."""
    with serve(repository) as url:
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection(parts.netloc)
        connection.connect()
        sock = connection.sock
        for path in ["PULP_MANIFEST", *(e.path for e in manifest.parse(repository.manifest))]:
            connection.request("GET", "/" + quote(path))
            assert connection.getresponse().read() == repository.get(path)
        assert connection.sock is sock
        connection.close()


def test_not_found():
    """The demo server answers 404 for a missing file, and its connection stays usable."""
    with serve(Repository(files=2, largest=10)) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        for _ in range(2):
            connection.request("GET", "/none")
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (404, b"")
        connection.close()


def test_client_gone(capfd):
    """The demo server reports nothing when a client disconnects during a transfer."""
    with serve(Repository(files=1, largest=2**25)) as url:
        host, port = urlsplit(url).netloc.split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"GET /files/00/file-000.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.recv(10)
            # Close by a reset instead of an orderly shutdown.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert capfd.readouterr() == ("", "")


def test_server_fails(capfd, monkeypatch):
    """The demo server reports an unexpected exception in its own code."""

    def broken(_self, _path):
        raise LookupError("a bug")

    monkeypatch.setattr(Repository, "get", broken)
    with serve(Repository(files=1, largest=1)) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("GET", "/a")
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        connection.close()
    assert "LookupError: a bug" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("before", "during"),
    [
        ({}, "127.0.0.1"),
        ({"no_proxy": "a.example"}, "a.example,127.0.0.1"),
        ({"NO_PROXY": "b.example"}, "b.example,127.0.0.1"),
    ],
)
def test_no_proxy(monkeypatch, before, during):
    """While the demo server runs, proxies of the environment are bypassed for loopback addresses.

    Afterwards they apply again.
    """
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    with serve(Repository(files=1, largest=1)):
        assert os.environ["no_proxy"] == during
    assert {k: v for k, v in os.environ.items() if k.lower() == "no_proxy"} == before
