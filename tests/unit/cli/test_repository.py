"""The generated repository and its server."""

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
    """What the command line serves by itself."""
    return Repository()


def test_content(repository):
    """There are a few hundred files, from empty ones to 4 MiB, and all are as listed."""
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
    """It is the same at every run and on every machine."""
    digest = "859fd410e2fbbd7ffdc82ff8ac448d783e70739549ee92cc98a9730c679670ad"
    assert hashlib.sha256(repository.manifest).hexdigest() == digest


def test_serve(repository):
    """The server keeps a connection, and serves every file, however odd its name."""
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
    """What isn't there is 404, and the connection stays usable."""
    with serve(Repository(files=2, largest=10)) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        for _ in range(2):
            connection.request("GET", "/none")
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (404, b"")
        connection.close()


def test_client_gone(capfd):
    """A client that goes away in the middle is nothing to tell."""
    with serve(Repository(files=1, largest=2**25)) as url:
        host, port = urlsplit(url).netloc.split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"GET /files/00/file-000.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.recv(10)
            # By a reset, and not by a polite end.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert capfd.readouterr() == ("", "")


def test_server_fails(capfd, monkeypatch):
    """A bug of the server isn't silent."""

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
    """A proxy of the environment isn't asked for what is on loopback, and only meanwhile."""
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    with serve(Repository(files=1, largest=1)):
        assert os.environ["no_proxy"] == during
    assert {k: v for k, v in os.environ.items() if k.lower() == "no_proxy"} == before
