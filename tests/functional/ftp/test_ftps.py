"""FTP over TLS: whom a download trusts, what is encrypted, and TLS that breaks."""

import logging
import os
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from http_tools import failure, into_memory, quick, trust
from servers.connection import Connection
from servers.ftp import Cut, FtpServer, Security
from servers.listener import HOST, Listener
from servers.raw import Cut as CutTls
from servers.raw import Damage, RawServer, Read, Send, Signal, Stall, Step
from servers.tls import PASSWORD, encrypted

from pulpcore.plugin.download.futures import (
    SSL,
    Batch,
    BufferWriter,
    DownloadFailed,
    Factory,
    FtpDownload,
    NotAuthorized,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.context import Context

CONTENT = os.urandom(300_000)
SECONDS = 20
BAD = ["wrong_name", "expired", "not_yet_valid", "self_signed"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    return folder


@pytest.fixture(params=["explicit", "implicit"])
def start(request: Any, ftp_server: Any, folder: Path, tls: Any) -> Any:
    """`start(certificate=None, client_ca=None, **options)` starts a server, of both kinds."""

    def make(certificate: Any = None, client_ca: Path | None = None, **options: Any) -> FtpServer:
        security = Security(certificate or tls.good, request.param == "implicit", client_ca)
        server: FtpServer = ftp_server(folder, security=security, **options)
        return server

    return make


def make(url: str, settings: SSL | None = None, **options: Any) -> FtpDownload:
    """A download into memory that demands TLS, and isn't tried again."""
    download = FtpDownload(url, BufferWriter(), ssl=settings, tls=True, **options)
    download.retry = None
    return download


def content(download: FtpDownload) -> bytes:
    """The bytes that a download brings."""
    download()
    assert isinstance(download.writer, BufferWriter)
    return download.writer.getvalue()


class TestTrust:
    def test_ca(self, start: Any, tls: Any, no_leaks: None) -> None:
        """The CA in the settings is trusted; login and data are encrypted."""
        server = start(users={"me": "secret"})
        download = make(server.url("/file"), trust(tls.ca), user=User("me", "secret"))
        assert content(download) == CONTENT
        # Which the server demands.
        assert server.told("PASS", "PROT") == [("PASS", "secret"), ("PROT", "P")]
        assert (("AUTH", "TLS") in server.commands) is server.url().startswith("ftp:")

    @pytest.mark.parametrize("name", BAD)
    def test_bad_certificate(self, start: Any, file_server: Any, tls: Any, name: str) -> None:
        """A bad one is NotAuthorized, in the words of https, and nobody logs in there."""
        server = start(getattr(tls, name))
        download = make(server.url("/file"), trust(tls.ca))
        download.retry = quick()
        error = failure(download, NotAuthorized)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert error.facts.attempt == 1
        assert server.told("USER", "PASS") == []
        web = file_server({"/a": b""}, tls=tls.server(getattr(tls, name)))
        same = failure(into_memory(web.url("/a"), ssl=trust(tls.ca)), NotAuthorized)
        assert error.reason == same.reason

    def test_default(self, start: Any, tls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """By default the usual authorities count, or the bundle of the environment."""
        url = start().url("/file")
        failure(make(url), NotAuthorized)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.ca))
        assert content(make(url)) == CONTENT
        failure(make(url, trust(tls.other_ca)), NotAuthorized)

    def test_no_validation(self, start: Any, tls: Any, caplog: pytest.LogCaptureFixture) -> None:
        """validation=False takes any certificate, for this download, and is logged once."""
        url = start(tls.self_signed).url("/file")
        context = Context()
        for validation in (False, True, False):
            download = make(url, SSL(validation=validation))
            download.context = context
            if validation:
                failure(download, NotAuthorized)
            else:
                assert content(download) == CONTENT
        context.close()
        found = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert ["not verified" in record.getMessage() for record in found] == [True]

    def test_client_certificate(self, start: Any, tls: Any) -> None:
        """A server that demands a client certificate gets it."""
        url = start(client_ca=tls.ca).url("/file")
        assert content(make(url, trust(tls.ca, tls.client))) == CONTENT

    def test_encrypted_key(self, start: Any, tls: Any, tmp_path: Path) -> None:
        """The key of a client certificate may be encrypted."""
        client = encrypted(tls.client, tmp_path)
        settings = trust(tls.ca, client, client_key_password=PASSWORD)
        assert content(make(start(client_ca=tls.ca).url("/file"), settings)) == CONTENT

    def test_system(self, start: Any, tls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who trusts whom the operating system trusts does so here."""
        url = start().url("/file")
        failure(make(url, SSL(SSL.SYSTEM)), NotAuthorized)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca))
        assert content(make(url, SSL(SSL.SYSTEM))) == CONTENT

    @pytest.mark.parametrize("name", [None, "stranger"])
    def test_client_certificate_refused(self, raw_server: Any, tls: Any, name: str | None) -> None:
        """No certificate, or a stranger's, is NotAuthorized, and isn't tried again."""
        server = raw_server([[Send(b"220 welcome\r\n")]], tls=tls.server(client_ca=tls.ca))
        certificate = getattr(tls, name) if name else None
        download = make(url_of(server), trust(tls.ca, certificate))
        download.retry = quick()
        assert "client certificate" in failure(download, NotAuthorized).reason
        assert server.connections == 1

    def test_wrong_setting(self, start: Any, folder: Path) -> None:
        """A CA that is none is named, before anything is sent."""
        server = start()
        settings = SSL(str(folder / "file"))
        reason = failure(make(server.url("/file"), settings), DownloadFailed).reason
        assert "setting" in reason
        assert "ca_certificate" in reason
        assert server.connections == 0

    def test_factory(self, start: Any, tls: Any, tmp_path: Path) -> None:
        """What a remote says counts, in PEM text; an ftp URL has to be told to demand TLS."""

        class Remote:
            ca_cert = tls.ca.read_text()
            client_cert = tls.client.certificate.read_text()
            client_key = tls.client.key.read_text()

        url = start(client_ca=tls.ca).url("/file")
        download: Any = Factory(Remote()).build(url, tmp_path / "out")
        download.tls = True
        download()
        assert (tmp_path / "out").read_bytes() == CONTENT

    def test_dot_at_the_end(self, start: Any, tls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The name of a host may end with a dot, which no certificate has."""
        real = socket.getaddrinfo

        def resolve(name: Any, *args: Any, **options: Any) -> Any:
            return real(HOST if name == "localhost." else name, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = start().url("/file").replace(HOST, "localhost.")
        assert content(make(url, trust(tls.ca))) == CONTENT


class TestNoTls:
    def test_refused(self, ftp_server: Any, folder: Path) -> None:
        """A server that has no TLS is an error at once, and gets no password."""
        server = ftp_server(folder)
        download = make(server.url("/file"), user=User("me", "secret"))
        download.retry = quick()
        assert "refuses TLS" in failure(download, DownloadFailed).reason
        assert server.told("USER", "PASS") == []
        assert server.connections == 1

    @pytest.mark.parametrize("unknown", ["PBSZ", "PROT"])
    def test_data_refused(self, start: Any, tls: Any, unknown: str) -> None:
        """Data that is not encrypted isn't asked for."""
        server = start(unknown={unknown})
        error = failure(make(server.url("/file"), trust(tls.ca)), DownloadFailed)
        assert "refuses TLS" in error.reason
        assert server.told("PASV", "RETR") == []

    def test_demanded(self, ftp_server: Any, folder: Path, tls: Any) -> None:
        """Without the setting there is no TLS; what a server says about that is shown."""
        server = ftp_server(folder, security=Security(tls.good))
        download = FtpDownload(server.url("/file"), None)
        with pytest.raises(DownloadFailed, match="TLS required"):
            download()

    def test_none_at_all(self, ftp_server: Any, folder: Path, tls: Any) -> None:
        """A server of ftp that is asked by ftps is an error at once."""
        server = ftp_server(folder)
        url = server.url("/file").replace("ftp:", "ftps:")
        error = failure(make(url, trust(tls.ca)), DownloadFailed)
        assert "the server doesn't speak TLS there" in error.reason
        assert not error.transient


def commands(*pairs: tuple[str, bytes]) -> list[Step]:
    """The steps that answer commands one after the other."""
    steps: list[Step] = []
    for name, answer in pairs:
        steps += [Read(until=name.encode()), Read(until=b"\r\n"), Send(answer + b"\r\n")]
    return steps


def implicit(data: Any, size: bytes = b"500 what?") -> list[Step]:
    """The steps from the welcome to the transfer from a data server."""
    return [
        Send(b"220 welcome\r\n"),
        *commands(
            ("USER", b"230 hello"),
            ("PBSZ", b"200 well"),
            ("PROT", b"200 well"),
            ("TYPE", b"200 yes"),
            ("SIZE", size),
            # The address is a lie.
            ("PASV", b"227 there (10,1,2,3,%d,%d)" % divmod(data.port, 256)),
            ("RETR", b"150 here"),
        ),
    ]


DONE = Send(b"226 done\r\n")


def url_of(server: RawServer) -> str:
    """The URL of a file on a server that speaks TLS at once."""
    return f"ftps://{server.host}/file"


class TestData:
    """The data connection."""

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_session(self, raw_server: Any, tls: Any, version: str) -> None:
        """It resumes the session of the control connection, as many servers demand."""
        context = tls.server(maximum=ssl.TLSVersion[version])
        data = raw_server([[Send(b"content")]], tls=context)
        server = raw_server([[*implicit(data), DONE]], tls=context)
        assert content(make(url_of(server), trust(tls.ca))) == b"content"
        assert context.session_stats()["hits"] == 1

    def test_certificate(self, raw_server: Any, tls: Any) -> None:
        """It is trusted no more than the control connection."""
        data = raw_server([[Send(b"content")]], tls=tls.server(tls.wrong_name))
        server = raw_server([[*implicit(data), DONE]], tls=tls.server())
        failure(make(url_of(server), trust(tls.ca)), NotAuthorized)

    @pytest.mark.parametrize(
        ("size", "sent", "whole"),
        [
            (b"500 what?", b"content", False),
            (b"213 8", b"content", False),
            (b"213 7", b"content", True),
            (b"213 1", b"", False),
            (b"213 0", b"", True),
        ],
    )
    def test_cut(
        self, raw_server: Any, tls: Any, size: bytes, sent: bytes, whole: bool, no_leaks: None
    ) -> None:
        """Where it ends without the end of TLS, only the size says that all has come."""
        data = raw_server([[Send(sent), CutTls()]], tls=tls.server())
        server = raw_server([[*implicit(data, size), DONE]], tls=tls.server())
        download = make(url_of(server), trust(tls.ca))
        if whole:
            assert content(download) == sent
        else:
            assert failure(download, DownloadFailed).transient

    def test_tried_again(self, start: Any, tls: Any, folder: Path) -> None:
        """What breaks off is gone on with, as without TLS."""
        os.utime(folder / "file", (0, 0))
        server = start(cuts={0: Cut(200_000, claim=True)})
        download = make(server.url("/file"), trust(tls.ca))
        download.retry = quick(1)
        assert content(download) == CONTENT
        assert server.told("REST") == [("REST", "200000")]

    @pytest.mark.parametrize("where", ["control", "data"])
    def test_damaged(self, raw_server: Any, tls: Any, where: str) -> None:
        """What was damaged on the way, on either connection, is fetched once more."""
        data = raw_server(
            [[Send(b"con"), Damage(), Stall()], [Send(b"content")]]
            if where == "data"
            else [[Send(b"content")]],
            tls=tls.server(),
        )
        whole = [*implicit(data), DONE]
        server = raw_server([[whole[0], Damage(), Stall()], whole], tls=tls.server())
        if where == "data":
            server = raw_server([whole], tls=tls.server())
        download = make(url_of(server), trust(tls.ca))
        download.retry = quick(1)
        assert content(download) == b"content"
        assert server.connections == 2

    def test_control_is_cut(self, raw_server: Any, tls: Any) -> None:
        """A control connection that is cut is tried again, and no matter of trust."""
        server = raw_server([[Send(b"220 "), CutTls()]], tls=tls.server())
        download = make(url_of(server), trust(tls.ca))
        download.retry = quick(1)
        assert "TLS" in failure(download, DownloadFailed).reason
        assert server.connections == 2


class Upgrading(Listener):
    """A server that sends something in the clear behind its yes to TLS, and refuses the login."""

    def serve(self, connection: Connection) -> None:
        """Play it."""
        connection.send(b"220 welcome\r\n")
        connection.read_until(b"AUTH TLS\r\n")
        connection.send(b"234 yes\r\n230 you are in\r\n200 yes\r\n200 yes\r\n")
        connection.socket = self.context.wrap_socket(connection.socket, server_side=True)
        connection.read_until(b"USER anonymous\r\n")
        connection.send(b"530 no\r\n")
        connection.wait_until_gone()

    context: ssl.SSLContext


def test_words_in_the_clear(running: Any, tls: Any) -> None:
    """What came in the clear behind the yes to TLS is no reply: anybody may have sent it."""
    server = running(Upgrading)
    server.context = tls.server()
    error = failure(make(f"ftp://{server.host}/file", trust(tls.ca)), NotAuthorized)
    assert "530 no" in error.reason


HELLO = [Send(b"220 welcome\r\n")]


class TestHandshake:
    """A handshake that doesn't go on."""

    @pytest.fixture(params=["implicit", "explicit", "data"])
    def stalled(self, request: Any, raw_server: Any, tls: Any) -> tuple[str, threading.Event]:
        """The URL of such a server, and what is set when it comes so far."""
        event = threading.Event()
        # The first bytes of TLS have come.
        stall = [Read(5), Signal(event), Stall()]
        if request.param == "implicit":
            return url_of(raw_server([stall])), event
        if request.param == "explicit":
            script = [*HELLO, *commands(("AUTH", b"234 yes")), *stall]
            return f"ftp://{raw_server([script]).host}/file", event
        data = raw_server([stall])
        return url_of(raw_server([[*implicit(data), Stall()]], tls=tls.server())), event

    def test_time_out(self, stalled: Any, tls: Any, no_leaks: None) -> None:
        """It is left after the time-out of connecting."""
        timeout = Timeout(connect=0.5, read=SECONDS)
        download = make(stalled[0], trust(tls.ca), timeout=timeout)
        error = failure(download, DownloadFailed)
        assert "time-out" in error.reason
        assert error.transient

    def test_total(self, stalled: Any, tls: Any) -> None:
        """So it is after the total limit."""
        timeout = Timeout(connect=SECONDS, read=SECONDS, total=0.5)
        download = make(stalled[0], trust(tls.ca), timeout=timeout)
        # A connection gets no longer than what is left of the total.
        assert re.search("total limit|time-out", failure(download, DownloadFailed).reason)

    def test_shutdown(self, stalled: Any, tls: Any, no_leaks: None) -> None:
        """A shutdown cuts it short, long before any time-out."""
        url, event = stalled
        download = make(url, trust(tls.ca), timeout=Timeout(connect=600, read=600))
        with Batch([download]) as batch:
            plans = batch()
            thread = threading.Thread(target=lambda: (event.wait(SECONDS), batch.shutdown()))
            thread.start()
            plan = next(plans)
            thread.join(SECONDS)
        assert "shut down" in str(plan.error)

    @pytest.mark.parametrize("where", ["implicit", "data"])
    def test_cut(self, raw_server: Any, tls: Any, where: str) -> None:
        """One that is cut may work when it is tried again, and is no matter of trust."""
        data = raw_server([[Read(5), CutTls()]])
        server = raw_server([[*implicit(data), Stall()]], tls=tls.server())
        download = make(url_of(data if where == "implicit" else server), trust(tls.ca))
        assert failure(download, DownloadFailed).transient
