"""Tests of public_only, which forbids connections to this machine and private networks."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from http_tools import chain, content, failure, into_memory, quick, record, trust
from servers.files import Redirect

from pulpcore.plugin.download.futures import DownloadFailed, Factory
from pulpcore.plugin.download.futures import address as addresses
from pulpcore.plugin.download.futures.context import Context

BODY = b"content " * 1000


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the set of addresses that count as public, because tests can't reach a real one."""
    found = {"127.0.0.1"}
    monkeypatch.setattr(addresses, "is_public", lambda address: address in found)
    return found


class Trap:
    """A server that must not receive anything.

    Attributes:
        peer: Its address and port.
        url: Its https URL.
    """

    def __init__(self, host: str) -> None:
        self._listening = socket.create_server((host, 0))
        self.peer: tuple[str, int] = self._listening.getsockname()
        self.url = "https://{}:{}/".format(*self.peer)

    def heard(self) -> bytes:
        """Return what arrived on the connection up to its end."""
        self._listening.settimeout(20)
        sock, _ = self._listening.accept()
        with sock:
            sock.settimeout(20)
            heard = b""
            while data := sock.recv(999):
                heard += data
        return heard

    def close(self) -> None:
        """Close the server."""
        self._listening.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    """Make a trap at an address of this machine other than 127.0.0.1."""
    try:
        made = Trap("127.0.0.2")
    except OSError:
        made = Trap("127.0.0.1")
    yield made
    made.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_sent(trap: Trap, scheme: str) -> None:
    """public_only closes a connection to this machine before a byte is sent, without a retry."""
    url = trap.url.replace("https", scheme)
    download = into_memory(url, quick(), public_only=True)
    events = record(download)
    error = failure(download, DownloadFailed)
    assert error.reason == "the host's address is not public, which public_only forbids"
    assert [event.retrying for event in events if event.NAME == "ERROR"] == [False]
    assert trap.heard() == b""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_name_that_turns(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, public: set[str], scheme: str
) -> None:
    """public_only checks the address that is connected to, against DNS rebinding."""
    looked_up = []

    def resolve(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", trap.peer)]

    public.clear()
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"{scheme}://files.example.test:{trap.peer[1]}/"
    error = failure(into_memory(url, public_only=True), DownloadFailed)
    assert looked_up == ["files.example.test"]
    # This message may be shown to other people.
    assert "127.0.0" not in str(error)
    assert "127.0.0" in "".join(str(item) for item in chain(error))
    assert trap.heard() == b""


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0", "localhost"])
def test_notations(file_server: Any, host: str) -> None:
    """public_only refuses this machine in every notation, such as 127.1 and 0x7f000001."""
    server = file_server({"/a": BODY})
    failure(into_memory(server.url("/a", host), public_only=True), DownloadFailed)
    assert server.count == 0


@pytest.mark.parametrize("with_tls", [False, True])
def test_public(file_server: Any, tls: Any, public: set[str], with_tls: bool) -> None:
    """public_only downloads from public addresses and keeps those connections alive."""
    server = file_server({"/a": BODY, "/b": Redirect("/a")}, tls=tls.server() if with_tls else None)
    context = Context()
    for path in ("/a", "/b"):
        download = into_memory(server.url(path), public_only=True, ssl=trust(tls.ca))
        download.context = context
        assert content(download) == BODY
    assert server.connections == 1
    context.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_redirect(file_server: Any, tls: Any, trap: Trap, public: set[str], scheme: str) -> None:
    """public_only refuses a redirect to a private address, and the error names the redirect."""
    if trap.peer[0] == "127.0.0.1":
        pytest.skip("this machine has one loopback address only")
    target = trap.url.replace("https", scheme)
    server = file_server({"/a": Redirect(target)})
    error = failure(into_memory(server.url("/a"), quick(), public_only=True), DownloadFailed)
    assert "not public" in error.reason
    assert f"{target}, where it was redirected to" in error.reason
    assert server.count == 1
    assert trap.heard() == b""


def test_kept_connections(file_server: Any, public: set[str]) -> None:
    """A download with public_only never reuses a connection or session made without it."""
    server = file_server({"/a": BODY})
    public.clear()
    context = Context()
    free, limited = (into_memory(server.url("/a"), public_only=value) for value in (False, True))
    free.context = limited.context = context
    for _ in range(2):
        assert content(free) == BODY
        failure(limited, DownloadFailed)
    assert server.count == 2
    assert free.session is not limited.session
    context.close()


def test_changed_by_a_handler(file_server: Any) -> None:
    """A handler of Prepared may still set public_only for the run."""
    server = file_server({"/a": BODY})
    download = into_memory(server.url("/a"))
    download.register("PREPARED", lambda event: setattr(event.download, "public_only", True))
    failure(download, DownloadFailed)
    assert server.count == 0
    assert download.clone().public_only


class TestProxy:
    """public_only with a proxy, behind which the address can't be known."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_refused(self, proxy: Any, scheme: str) -> None:
        """public_only refuses a proxy in the settings without connecting to it."""
        gate = proxy()
        url = f"{scheme}://files.example.test/a"
        download = into_memory(url, quick(), public_only=True, proxy_url=gate.url(""))
        reason = failure(download, DownloadFailed).reason
        assert "public_only" in reason
        assert "proxy" in reason
        assert gate.connections == 0

    def test_of_the_environment(
        self, proxy: Any, file_server: Any, public: set[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """public_only refuses a proxy of the environment unless no_proxy excludes the host."""
        gate, server = proxy(), file_server({"/a": BODY})
        monkeypatch.setenv("http_proxy", gate.url(""))
        error = failure(into_memory(server.url("/a"), public_only=True), DownloadFailed)
        assert "proxy" in error.reason
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert content(into_memory(server.url("/a"), public_only=True)) == BODY
        assert gate.connections == 0


def test_factory(file_server: Any, tmp_path: Any) -> None:
    """A factory sets its public_only on the downloads that it builds."""
    server = file_server({"/a": BODY})
    target = tmp_path / "a"
    failure(Factory(None, public_only=True).build(server.url("/a"), target), DownloadFailed)
    assert server.count == 0
    Factory(None).build(server.url("/a"), target)()
    assert target.read_bytes() == BODY
