"""Tests of FTP over TLS: trusted certificates, encrypted connections, and broken TLS."""

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
    """Create the served folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    return folder


@pytest.fixture(params=["explicit", "implicit"])
def start(request: Any, ftp_server: Any, folder: Path, tls: Any) -> Any:
    """Return `start(certificate=None, client_ca=None, **options)`, which starts FTP or FTPS."""

    def make(certificate: Any = None, client_ca: Path | None = None, **options: Any) -> FtpServer:
        security = Security(certificate or tls.good, request.param == "implicit", client_ca)
        server: FtpServer = ftp_server(folder, security=security, **options)
        return server

    return make


def make(url: str, settings: SSL | None = None, **options: Any) -> FtpDownload:
    """Make a download into memory that demands TLS and has no retries."""
    download = FtpDownload(url, BufferWriter(), ssl=settings, tls=True, **options)
    download.retry = None
    return download


def content(download: FtpDownload) -> bytes:
    """Run a download and return its content."""
    download()
    assert isinstance(download.writer, BufferWriter)
    return download.writer.getvalue()


class TestTrust:
    def test_ca(self, start: Any, tls: Any, no_leaks: None) -> None:
        """An FTPS download trusts the CA in its settings and encrypts both login and data."""
        server = start(users={"me": "secret"})
        download = make(server.url("/file"), trust(tls.ca), user=User("me", "secret"))
        assert content(download) == CONTENT
        # The server demands both.
        assert server.told("PASS", "PROT") == [("PASS", "secret"), ("PROT", "P")]
        assert (("AUTH", "TLS") in server.commands) is server.url().startswith("ftp:")

    @pytest.mark.parametrize("name", BAD)
    def test_bad_certificate(self, start: Any, file_server: Any, tls: Any, name: str) -> None:
        """A bad certificate raises NotAuthorized as with https, before the login is sent."""
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
        """By default FTPS trusts the usual CAs, or the CA bundle that the environment names."""
        url = start().url("/file")
        failure(make(url), NotAuthorized)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.ca))
        assert content(make(url)) == CONTENT
        failure(make(url, trust(tls.other_ca)), NotAuthorized)

    def test_no_validation(self, start: Any, tls: Any, caplog: pytest.LogCaptureFixture) -> None:
        """validation=False accepts any certificate for that FTPS download and is logged once."""
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
        """An FTPS server that demands a client certificate gets the one in the settings."""
        url = start(client_ca=tls.ca).url("/file")
        assert content(make(url, trust(tls.ca, tls.client))) == CONTENT

    def test_encrypted_key(self, start: Any, tls: Any, tmp_path: Path) -> None:
        """The private key of an FTPS client certificate may be encrypted."""
        client = encrypted(tls.client, tmp_path)
        settings = trust(tls.ca, client, client_key_password=PASSWORD)
        assert content(make(start(client_ca=tls.ca).url("/file"), settings)) == CONTENT

    def test_system(self, start: Any, tls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """With SSL.SYSTEM an FTPS download trusts the CAs of the operating system."""
        url = start().url("/file")
        failure(make(url, SSL(SSL.SYSTEM)), NotAuthorized)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca))
        assert content(make(url, SSL(SSL.SYSTEM))) == CONTENT

    @pytest.mark.parametrize("name", [None, "stranger"])
    def test_client_certificate_refused(self, raw_server: Any, tls: Any, name: str | None) -> None:
        """A missing or unknown client certificate raises NotAuthorized without a retry."""
        server = raw_server([[Send(b"220 welcome\r\n")]], tls=tls.server(client_ca=tls.ca))
        certificate = getattr(tls, name) if name else None
        download = make(url_of(server), trust(tls.ca, certificate))
        download.retry = quick()
        assert "client certificate" in failure(download, NotAuthorized).reason
        assert server.connections == 1

    def test_wrong_setting(self, start: Any, folder: Path) -> None:
        """If the CA file of an FTPS download is invalid, the error names it before connecting."""
        server = start()
        settings = SSL(str(folder / "file"))
        reason = failure(make(server.url("/file"), settings), DownloadFailed).reason
        assert "setting" in reason
        assert "ca_certificate" in reason
        assert server.connections == 0

    def test_factory(self, start: Any, tls: Any, tmp_path: Path) -> None:
        """A factory passes the PEM texts of a remote to the TLS of an FTP download."""

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
        """FTPS accepts a host name with a trailing dot, which certificates never contain."""
        real = socket.getaddrinfo

        def resolve(name: Any, *args: Any, **options: Any) -> Any:
            return real(HOST if name == "localhost." else name, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = start().url("/file").replace(HOST, "localhost.")
        assert content(make(url, trust(tls.ca))) == CONTENT


class TestNoTls:
    def test_refused(self, ftp_server: Any, folder: Path) -> None:
        """An FTP server that refuses TLS is an error without a retry, and gets no password."""
        server = ftp_server(folder)
        download = make(server.url("/file"), user=User("me", "secret"))
        download.retry = quick()
        assert "refuses TLS" in failure(download, DownloadFailed).reason
        assert server.told("USER", "PASS") == []
        assert server.connections == 1

    @pytest.mark.parametrize("unknown", ["PBSZ", "PROT"])
    def test_data_refused(self, start: Any, tls: Any, unknown: str) -> None:
        """If the server refuses to encrypt the data connection, nothing is requested."""
        server = start(unknown={unknown})
        error = failure(make(server.url("/file"), trust(tls.ca)), DownloadFailed)
        assert "refuses TLS" in error.reason
        assert server.told("PASV", "RETR") == []

    def test_demanded(self, ftp_server: Any, folder: Path, tls: Any) -> None:
        """Without the `tls` setting an FTP server's demand for TLS is shown in the error."""
        server = ftp_server(folder, security=Security(tls.good))
        download = FtpDownload(server.url("/file"), None)
        with pytest.raises(DownloadFailed, match="TLS required"):
            download()

    def test_none_at_all(self, ftp_server: Any, folder: Path, tls: Any) -> None:
        """An ftps URL of a server without TLS fails with an error that says so."""
        server = ftp_server(folder)
        url = server.url("/file").replace("ftp:", "ftps:")
        error = failure(make(url, trust(tls.ca)), DownloadFailed)
        assert "the server doesn't speak TLS there" in error.reason
        assert not error.transient


def commands(*pairs: tuple[str, bytes]) -> list[Step]:
    """Make the steps that read commands and answer them in order."""
    steps: list[Step] = []
    for name, answer in pairs:
        steps += [Read(until=name.encode()), Read(until=b"\r\n"), Send(answer + b"\r\n")]
    return steps


def implicit(data: Any, size: bytes = b"500 what?") -> list[Step]:
    """Make the steps from the welcome up to the transfer by a data server."""
    return [
        Send(b"220 welcome\r\n"),
        *commands(
            ("USER", b"230 hello"),
            ("PBSZ", b"200 well"),
            ("PROT", b"200 well"),
            ("TYPE", b"200 yes"),
            ("SIZE", size),
            # This address is false on purpose.
            ("PASV", b"227 there (10,1,2,3,%d,%d)" % divmod(data.port, 256)),
            ("RETR", b"150 here"),
        ),
    ]


DONE = Send(b"226 done\r\n")


def url_of(server: RawServer) -> str:
    """Make the URL of a file on a server with implicit TLS."""
    return f"ftps://{server.host}/file"


class TestData:
    """TLS on the FTP data connection."""

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_session(self, raw_server: Any, tls: Any, version: str) -> None:
        """The FTP data connection resumes the TLS session of the control connection.

        Many servers demand it.
        """
        context = tls.server(maximum=ssl.TLSVersion[version])
        data = raw_server([[Send(b"content")]], tls=context)
        server = raw_server([[*implicit(data), DONE]], tls=context)
        assert content(make(url_of(server), trust(tls.ca))) == b"content"
        assert context.session_stats()["hits"] == 1

    def test_certificate(self, raw_server: Any, tls: Any) -> None:
        """The certificate of the FTP data connection is verified like that of the control one."""
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
        """A TLS data connection cut without close_notify succeeds only if the size is right."""
        data = raw_server([[Send(sent), CutTls()]], tls=tls.server())
        server = raw_server([[*implicit(data, size), DONE]], tls=tls.server())
        download = make(url_of(server), trust(tls.ca))
        if whole:
            assert content(download) == sent
        else:
            assert failure(download, DownloadFailed).transient

    def test_tried_again(self, start: Any, tls: Any, folder: Path) -> None:
        """An interrupted FTPS transfer resumes at the byte where it broke off."""
        os.utime(folder / "file", (0, 0))
        server = start(cuts={0: Cut(200_000, claim=True)})
        download = make(server.url("/file"), trust(tls.ca))
        download.retry = quick(1)
        assert content(download) == CONTENT
        assert server.told("REST") == [("REST", "200000")]

    @pytest.mark.parametrize("where", ["control", "data"])
    def test_damaged(self, raw_server: Any, tls: Any, where: str) -> None:
        """FTPS data that was damaged on either connection is downloaded again."""
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
        """A cut TLS control connection is retried and not reported as an untrusted server."""
        server = raw_server([[Send(b"220 "), CutTls()]], tls=tls.server())
        download = make(url_of(server), trust(tls.ca))
        download.retry = quick(1)
        assert "TLS" in failure(download, DownloadFailed).reason
        assert server.connections == 2


class Upgrading(Listener):
    """A server that sends plain text after accepting AUTH TLS and then refuses the login."""

    def serve(self, connection: Connection) -> None:
        """Serve one connection."""
        connection.send(b"220 welcome\r\n")
        connection.read_until(b"AUTH TLS\r\n")
        connection.send(b"234 yes\r\n230 you are in\r\n200 yes\r\n200 yes\r\n")
        connection.socket = self.context.wrap_socket(connection.socket, server_side=True)
        connection.read_until(b"USER anonymous\r\n")
        connection.send(b"530 no\r\n")
        connection.wait_until_gone()

    context: ssl.SSLContext


def test_words_in_the_clear(running: Any, tls: Any) -> None:
    """Plain text that follows the reply to AUTH TLS is dropped, as an attacker may have sent it."""
    server = running(Upgrading)
    server.context = tls.server()
    error = failure(make(f"ftp://{server.host}/file", trust(tls.ca)), NotAuthorized)
    assert "530 no" in error.reason


HELLO = [Send(b"220 welcome\r\n")]


class TestHandshake:
    """A TLS handshake that stalls."""

    @pytest.fixture(params=["implicit", "explicit", "data"])
    def stalled(self, request: Any, raw_server: Any, tls: Any) -> tuple[str, threading.Event]:
        """Return the URL of a server that stalls, and an event that is set when it does."""
        event = threading.Event()
        # The client has sent the first bytes of TLS.
        stall = [Read(5), Signal(event), Stall()]
        if request.param == "implicit":
            return url_of(raw_server([stall])), event
        if request.param == "explicit":
            script = [*HELLO, *commands(("AUTH", b"234 yes")), *stall]
            return f"ftp://{raw_server([script]).host}/file", event
        data = raw_server([stall])
        return url_of(raw_server([[*implicit(data), Stall()]], tls=tls.server())), event

    def test_time_out(self, stalled: Any, tls: Any, no_leaks: None) -> None:
        """A stalled FTPS handshake fails after the connect time-out, which is transient."""
        timeout = Timeout(connect=0.5, read=SECONDS)
        download = make(stalled[0], trust(tls.ca), timeout=timeout)
        error = failure(download, DownloadFailed)
        assert "time-out" in error.reason
        assert error.transient

    def test_total(self, stalled: Any, tls: Any) -> None:
        """A stalled FTPS handshake fails after the total limit of the download."""
        timeout = Timeout(connect=SECONDS, read=SECONDS, total=0.5)
        download = make(stalled[0], trust(tls.ca), timeout=timeout)
        # The connect time-out is at most what is left of the total limit.
        assert re.search("total limit|time-out", failure(download, DownloadFailed).reason)

    def test_shutdown(self, stalled: Any, tls: Any, no_leaks: None) -> None:
        """A shutdown interrupts a stalled FTPS handshake long before any time-out."""
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
        """An FTPS handshake that is cut is a transient error and not a matter of trust."""
        data = raw_server([[Read(5), CutTls()]])
        server = raw_server([[*implicit(data), Stall()]], tls=tls.server())
        download = make(url_of(data if where == "implicit" else server), trust(tls.ca))
        assert failure(download, DownloadFailed).transient
