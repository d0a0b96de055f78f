"""Tests of downloads that ask mirrors."""

from typing import Any

import pytest
from http_tools import content
from servers.files import FileServer, Redirect
from servers.message import basic

from pulpcore.plugin.download.futures import BufferWriter, HttpDownload, User
from pulpcore.plugin.download.futures.engine.attempt import Attempt

BODY = b"content " * 1000


class OfSource(HttpDownload):
    """A download each attempt of which asks the URL in `source`."""

    chosen = ""

    def _send(self) -> None:
        Attempt.of(self).chosen = self.chosen
        super()._send()


class TestCredentials:
    @pytest.fixture
    def pair(self, file_server: Any) -> tuple[FileServer, FileServer]:
        """The server of a URL, and one of a mirror, which redirects `/to` to the first."""
        home = file_server({"/a": BODY})
        return home, file_server({"/a": BODY, "/to": Redirect(home.url("/a"))})

    def test_headers(self, pair: tuple[FileServer, FileServer]) -> None:
        """A mirror gets User-Agent, Accept and Range of the caller's headers, and no others."""
        home, mirror = pair
        own = {"Accept": "x/y", "Accept-Language": "de", "User-Agent": "me", "Range": "bytes=0-"}
        secrets = {"Authorization": "Bearer s3cret", "Cookie": "a=b", "X-Token": "s3cret"}
        download = OfSource(home.url("/a"), BufferWriter(), headers=own | secrets)
        download.chosen = mirror.url("/a")
        download.user = User("me", "s3cret")
        assert content(download) == BODY
        [request] = mirror.requests
        assert own.items() <= dict(request.headers).items()
        assert not secrets.keys() & dict(request.headers).keys()
        assert home.count == 0

    @pytest.mark.parametrize("own", [{"user": User("me", "s3cret")}, {}])
    def test_userinfo(self, pair: tuple[FileServer, FileServer], own: Any) -> None:
        """Userinfo in a mirror's URL goes to that mirror, and that of the URL to the URL only."""
        home, mirror = pair
        download = OfSource(home.url("/a", userinfo="me:s3cret"), BufferWriter(), **own)
        download.chosen = mirror.url("/a", userinfo="you:theirs")
        assert content(download) == BODY
        download.chosen = mirror.url("/to")
        assert content(download) == BODY
        sent = [request.header("Authorization") for request in mirror.requests]
        assert sent == [basic("you", "theirs"), None]
        assert home.requests[0].header("Authorization") == basic("me", "s3cret")

    def test_netrc(
        self, pair: tuple[FileServer, FileServer], monkeypatch: Any, tmp_path: Any
    ) -> None:
        """A netrc file has credentials for the host of the URL, and not for that of a mirror."""
        home, mirror = pair
        path = tmp_path / "netrc"
        path.write_text("machine 127.0.0.1 login me password s3cret\n")
        monkeypatch.setenv("NETRC", str(path))
        download = OfSource(home.url("/a"), BufferWriter())
        for download.chosen in (mirror.url("/a"), home.url("/a"), mirror.url("/to")):
            assert content(download) == BODY
        assert [request.header("Authorization") for request in mirror.requests] == [None, None]
        sent = [request.header("Authorization") for request in home.requests]
        assert sent == [basic("me", "s3cret")] * 2
