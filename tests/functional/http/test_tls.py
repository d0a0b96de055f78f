"""Tests of TLS: which servers a download trusts, and how it authenticates itself."""

import hashlib
import logging
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from http_tools import content, failure, into_memory, quick, record, trust
from servers.raw import Cut, Damage, Read, Recv, Reset, Send, Stall, reply, serve

from pulpcore.plugin.download.futures import (
    SSL,
    BufferWriter,
    DownloadFailed,
    HttpDownload,
    NotAuthorized,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.net.tls import make_context

BODY = b"content " * 1000
# The content of a record, its type, and its version.
DAMAGES = [Damage(), Damage(b"\x55\3\3\0\1!"), Damage(b"\x17\x42\3\0\1!")]
BAD = {
    "wrong_name": "not valid for|mismatch",
    "expired": "expired",
    "not_yet_valid": "not yet valid",
    "self_signed": "self.signed",
}


def subject_hash(certificate: Path) -> str:
    """Return the hash of a subject by which OpenSSL finds a certificate in a folder."""
    subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
    normalized = x509.Name(
        [x509.NameAttribute(a.oid, " ".join(str(a.value).lower().split())) for a in subject]
    ).public_bytes()
    assert len(normalized) < 130, "its header isn't of two bytes"
    digest = hashlib.sha1(normalized[2:]).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


class TestTrust:
    def test_ca(self, file_server: Any, tls: Any) -> None:
        """The CA in the settings is trusted, as a path or as PEM text."""
        server = file_server({"/a": BODY}, tls=tls.server())
        for ca in (str(tls.ca), tls.ca.read_text()):
            download = into_memory(server.url("/a"), ssl=SSL(ca_certificate=ca))
            assert content(download) == BODY
            assert download.reply.url.startswith("https:")

    @pytest.mark.parametrize("path_type", [str, Path])
    def test_path_objects(self, file_server: Any, tls: Any, path_type: type) -> None:
        """The CA file in the settings may be a Path object."""
        server = file_server({"/a": BODY}, tls=tls.server())
        settings = SSL(path_type(tls.ca), path_type(tls.client.both))
        assert content(into_memory(server.url("/a"), ssl=settings)) == BODY

    @pytest.mark.parametrize("name", BAD)
    def test_bad_certificate(self, file_server: Any, tls: Any, name: str) -> None:
        """A bad certificate raises NotAuthorized, which says what is wrong, without a retry."""
        server = file_server({"/a": BODY}, tls=tls.server(getattr(tls, name)))
        download = into_memory(server.url("/a"), quick(), ssl=trust(tls.ca))
        events = record(download)
        error = failure(download, NotAuthorized)
        assert "not trusted" in error.reason
        assert isinstance(error.__cause__, requests.exceptions.SSLError)
        assert [event.retrying for event in events if event.NAME == "ERROR"] == [False]
        assert (server.count, server.connections) == (0, 1)
        with pytest.raises(NotAuthorized, match=f"(?i){BAD[name]}"):
            raise error

    def test_untrusted(self, file_server: Any, tls: Any) -> None:
        """By default a certificate by an unknown CA isn't trusted."""
        server = file_server({"/a": BODY}, tls=tls.server())
        for settings in (None, trust(tls.other_ca)):
            error = failure(into_memory(server.url("/a"), ssl=settings), NotAuthorized)
            assert "unable to get local issuer certificate" in error.reason
        assert server.count == 0

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_system(
        self,
        file_server: Any,
        tls: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
    ) -> None:
        """With SSL.SYSTEM the CAs of the operating system are trusted instead of the bundles."""
        server = file_server({"/a": BODY}, tls=tls.server())
        (tmp_path / f"{subject_hash(tls.ca)}.0").write_bytes(tls.ca.read_bytes())
        system = str(tls.ca) if variable == "SSL_CERT_FILE" else str(tmp_path)
        monkeypatch.setenv(variable, system)
        failure(into_memory(server.url("/a")), NotAuthorized)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.other_ca))
        assert content(into_memory(server.url("/a"), ssl=SSL(SSL.SYSTEM))) == BODY
        monkeypatch.delenv(variable)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.other_ca))
        failure(into_memory(server.url("/a"), ssl=SSL(SSL.SYSTEM)), NotAuthorized)

    @pytest.mark.skipif(
        not Path(ssl.get_default_verify_paths().cafile or "").is_file(),
        reason="this system has no file of certificates",
    )
    def test_system_as_it_is(self) -> None:
        """SSL.SYSTEM loads the certificates of this operating system."""
        assert make_context(SSL(SSL.SYSTEM), None).get_ca_certs()

    def test_no_system(
        self, file_server: Any, tls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With SSL.SYSTEM, missing or broken system certificates are an error."""
        server = file_server({"/a": BODY}, tls=tls.server())
        (tmp_path / "broken").write_text("nonsense")
        for file, said in [("missing", "SSL_CERT_FILE"), ("broken", "can be read")]:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / file))
            monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
            error = failure(into_memory(server.url("/a"), ssl=SSL(SSL.SYSTEM)), DownloadFailed)
            assert "ca_certificate: the system" in error.reason
            assert said in error.reason
        assert server.connections == 0

    def test_own_certificate_as_ca(self, file_server: Any, tls: Any) -> None:
        """A self-signed certificate is accepted if the settings name it as CA."""
        server = file_server({"/a": BODY}, tls=tls.server(tls.self_signed))
        settings = trust(tls.self_signed.certificate)
        assert content(into_memory(server.url("/a"), ssl=settings)) == BODY

    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_bundle(
        self, file_server: Any, tls: Any, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        """A CA bundle named by the environment is trusted unless the settings name a CA."""
        server = file_server({"/a": BODY}, tls=tls.server())
        monkeypatch.setenv(variable, str(tls.ca))
        assert content(into_memory(server.url("/a"))) == BODY
        failure(into_memory(server.url("/a"), ssl=trust(tls.other_ca)), NotAuthorized)
        monkeypatch.setenv(variable, str(tls.other_ca))
        assert content(into_memory(server.url("/a"), ssl=trust(tls.ca))) == BODY
        failure(into_memory(server.url("/a")), NotAuthorized)

    def test_bundle_is_a_folder(
        self, file_server: Any, tls: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The CA bundle named by the environment may be a folder, here an empty one."""
        server = file_server({"/a": BODY}, tls=tls.server())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
        failure(into_memory(server.url("/a")), NotAuthorized)

    def test_bundle_is_missing(
        self, file_server: Any, tls: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the CA bundle of the environment is missing, the error names the variable."""
        server = file_server({"/a": BODY}, tls=tls.server())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
        reason = failure(into_memory(server.url("/a")), DownloadFailed).reason
        assert "/nowhere/bundle.pem" in reason
        assert "REQUESTS_CA_BUNDLE" in reason

    def test_no_tls(self, raw_server: Any, tls: Any) -> None:
        """An https download from a server without TLS fails with a clear error, not retried."""
        server = raw_server([[Read(1), Send(reply(400))]])
        url = server.url("/a").replace("http:", "https:")
        download = into_memory(url, quick(), ssl=trust(tls.ca))
        assert "TLS" in failure(download, DownloadFailed).reason
        assert server.connections == 1


class TestVersion:
    @pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="this OpenSSL can't speak TLS 1.1 any more")
    @pytest.mark.parametrize("validation", [True, False])
    def test_too_old(self, file_server: Any, tls: Any, validation: bool) -> None:
        """A server that offers only TLS 1.1 is refused, though other clients accept it."""

        def weaken(context: ssl.SSLContext) -> ssl.SSLContext:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
            return context

        server = file_server({"/a": BODY}, tls=weaken(tls.server()))
        other = weaken(ssl.create_default_context(cafile=tls.ca))
        with (
            socket.create_connection(("127.0.0.1", server.port)) as sock,
            other.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
        ):
            assert secure.version() == "TLSv1.1"
        settings = SSL(str(tls.ca), validation=validation)
        download = into_memory(server.url("/a"), quick(), ssl=settings)
        assert "PROTOCOL_VERSION" in failure(download, DownloadFailed).reason
        assert (server.count, server.connections) == (0, 2)

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_new_enough(self, file_server: Any, tls: Any, version: str) -> None:
        """Servers with TLS 1.2 or TLS 1.3 are accepted."""
        context = tls.server(maximum=ssl.TLSVersion[version])
        context.minimum_version = ssl.TLSVersion[version]
        server = file_server({"/a": BODY}, tls=context)
        assert content(into_memory(server.url("/a"), ssl=trust(tls.ca))) == BODY

    @pytest.mark.parametrize("settings", [SSL(), SSL(validation=False)], ids=repr)
    def test_context(self, settings: SSL) -> None:
        """Our TLS context itself sets the minimum version, whatever OpenSSL's configuration."""
        assert make_context(settings, None).minimum_version == ssl.TLSVersion.TLSv1_2


class TestNoValidation:
    @pytest.mark.parametrize("name", [*BAD, "good"])
    def test_accepts(self, file_server: Any, tls: Any, name: str) -> None:
        """validation=False accepts any certificate, without a warning of urllib3."""
        server = file_server({"/a": BODY}, tls=tls.server(getattr(tls, name)))
        assert content(into_memory(server.url("/a"), ssl=SSL(validation=False))) == BODY

    def test_for_this_download_only(
        self, file_server: Any, tls: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """validation=False applies to that download only, and is logged once."""
        server = file_server({"/a": BODY}, tls=tls.server())
        context = Context()
        for validation in (True, False, True, False):
            download = into_memory(server.url("/a"), ssl=SSL(validation=validation))
            download.context = context
            if validation:
                failure(download, NotAuthorized)
            else:
                assert content(download) == BODY
        context.close()
        found = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(found) == 1
        assert "not verified" in found[0].getMessage()

    def test_environment(self, file_server: Any, tls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """validation=False also applies if the environment names a CA bundle."""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.other_ca))
        server = file_server({"/a": BODY}, tls=tls.server())
        assert content(into_memory(server.url("/a"), ssl=SSL(validation=False))) == BODY


class TestClientCertificate:
    @pytest.fixture
    def server(self, file_server: Any, tls: Any) -> Any:
        """Start a server that demands a client certificate."""
        return file_server({"/a": BODY}, tls=tls.server(client_ca=tls.ca))

    def test_accepted(
        self,
        server: Any,
        tls: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A client certificate works as one or two files and as PEM text, which leaves no file."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        client, ca = tls.client, str(tls.ca)
        for certificate, key in [
            (str(client.both), None),
            (str(client.both), ""),
            (str(client.certificate), str(client.key)),
            (client.both.read_text(), None),
            (client.certificate.read_text(), client.key.read_text()),
            (str(client.certificate), client.key.read_text()),
        ]:
            download = into_memory(server.url("/a"), ssl=SSL(ca, certificate, key))
            assert content(download) == BODY
        assert list(tmp_path.iterdir()) == []

    def test_without_validation(self, server: Any, tls: Any) -> None:
        """The client certificate is sent also to a server that isn't verified."""
        settings = SSL(client_certificate=str(tls.client.both), validation=False)
        assert content(into_memory(server.url("/a"), ssl=settings)) == BODY

    @pytest.mark.parametrize(
        ("version", "name", "kind"),
        [
            # With TLS 1.2 the server says only that the handshake failed.
            ("TLSv1_2", None, DownloadFailed),
            ("TLSv1_2", "stranger", NotAuthorized),
            ("TLSv1_3", None, NotAuthorized),
            ("TLSv1_3", "stranger", NotAuthorized),
        ],
    )
    def test_refused(
        self, file_server: Any, tls: Any, version: str, name: str | None, kind: type[DownloadFailed]
    ) -> None:
        """A missing or unknown client certificate is an error without a retry."""
        context = tls.server(client_ca=tls.ca, maximum=ssl.TLSVersion[version])
        server = file_server({"/a": BODY}, tls=context)
        certificate = getattr(tls, name) if name else None
        download = into_memory(server.url("/a"), quick(), ssl=trust(tls.ca, certificate))
        reason = failure(download, kind).reason
        assert "client certificate" in reason or kind is DownloadFailed
        assert server.connections == 1

    @pytest.mark.parametrize("as_text", [False, True])
    def test_encrypted_key(self, server: Any, tls: Any, tmp_path: Path, as_text: bool) -> None:
        """An encrypted client key without a password is an error, without a prompt."""
        key = serialization.load_pem_private_key(tls.client.key.read_bytes(), None)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (tmp_path / "key").write_bytes(pem)
        given = pem.decode() if as_text else str(tmp_path / "key")
        settings = SSL(str(tls.ca), str(tls.client.certificate), given)
        reason = failure(into_memory(server.url("/a"), ssl=settings), DownloadFailed).reason
        assert "encrypted" in reason
        assert "client_key" in reason
        assert server.connections == 0

    def test_nobody_is_asked(self, tls: Any, tmp_path: Path) -> None:
        """OpenSSL doesn't prompt on a terminal for the password of a client key."""
        key = serialization.load_pem_private_key(tls.client.key.read_bytes(), None)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (tmp_path / "key").write_bytes(pem)
        program = f"""
            import os, sys
            from pulpcore.plugin.download.futures import SSL, DownloadFailed, HttpDownload
            os.open(sys.argv[1], os.O_RDWR)  # the terminal of this session from now on
            settings = SSL(None, {str(tls.client.certificate)!r}, {str(tmp_path / "key")!r})
            try:
                HttpDownload("https://127.0.0.1:1/", None, ssl=settings)()
            except DownloadFailed as error:
                sys.exit("encrypted" not in error.reason)
        """
        master, slave = os.openpty()
        with os.fdopen(master, "rb", buffering=0) as terminal, os.fdopen(slave):
            child = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program), os.ttyname(slave)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
                timeout=100,
                check=False,
            )
            os.set_blocking(master, False)
            assert terminal.read(99) is None
        assert child.returncode == 0

    @pytest.mark.parametrize("as_text", [False, True])
    @pytest.mark.parametrize(
        ("attribute", "content_"),
        [
            ("ca_certificate", ""),
            ("ca_certificate", "-----BEGIN CERTIFICATE-----\nnonsense\n"),
            ("client_certificate", "-----BEGIN CERTIFICATE-----\nnonsense\n"),
            ("client_certificate", "client.crt"),
            ("client_key", "stranger.key"),
        ],
    )
    def test_bad_pem(
        self, server: Any, tls: Any, tmp_path: Path, attribute: str, content_: str, as_text: bool
    ) -> None:
        """Invalid or mismatching PEM text in the settings is named by its attribute."""
        if content_.startswith(("client.", "stranger.")):
            content_ = (tls.folder / content_).read_text()
        (tmp_path / "pem").write_text(content_)
        settings = SSL(str(tls.ca), str(tls.client.both))
        setattr(settings, attribute, content_ if as_text and content_ else str(tmp_path / "pem"))
        error = failure(into_memory(server.url("/a"), ssl=settings), DownloadFailed)
        assert f"ssl.{attribute}" in error.reason or f"{attribute}" in error.reason
        assert "PRIVATE" not in str(error)
        assert server.connections == 0


class TestSharing:
    """Two downloads whose TLS settings differ never share a connection."""

    def test_never_shared(self, file_server: Any, tls: Any) -> None:
        """Each different TLS setting has its own connection; equal settings share one."""
        server = file_server({"/a": BODY}, tls=tls.server())
        context = Context()
        settings = [
            trust(tls.ca),
            trust(tls.ca, tls.client),
            SSL(validation=False),
            SSL(str(tls.ca), str(tls.client.certificate), str(tls.client.key)),
            SSL(ca_certificate=tls.ca.read_text()),
        ]
        for expected in (len(settings), len(settings)):
            for setting in settings:
                download = into_memory(server.url("/a"), ssl=setting)
                download.context = context
                assert content(download) == BODY
            assert server.connections == expected
        context.close()

    def test_changed_later(self, file_server: Any, tls: Any) -> None:
        """A TLS setting that is changed in place applies to the next run."""
        server = file_server({"/a": BODY}, tls=tls.server())
        context = Context()
        download = into_memory(server.url("/a"), ssl=SSL(validation=False))
        download.context = context
        content(download)
        download.ssl.validation = True
        failure(download, NotAuthorized)
        context.close()

    def test_file_changed(self, file_server: Any, tls: Any, tmp_path: Path) -> None:
        """A new context reads the certificate files again."""
        server = file_server({"/a": BODY}, tls=tls.server())
        ca = tmp_path / "ca.pem"
        ca.write_bytes(tls.other_ca.read_bytes())
        download = into_memory(server.url("/a"), ssl=trust(ca))
        download.context = Context()
        failure(download, NotAuthorized)
        ca.write_bytes(tls.ca.read_bytes())
        download.context = context = Context()
        assert content(download) == BODY
        context.close()


class TestBroken:
    """TLS connections that are cut or damaged."""

    @pytest.mark.parametrize("end", [Cut(), Reset()])
    def test_in_the_body(self, raw_server: Any, tls: Any, end: Any) -> None:
        """A TLS connection cut within the body is retried."""
        whole = reply(headers={"ETag": '"e"'}, body=BODY)
        server = raw_server([[Recv(), Send(whole[:-9]), end], serve(whole)], tls=tls.server())
        assert content(into_memory(server.url(), quick(), ssl=trust(tls.ca))) == BODY
        assert server.connections == 2

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    @pytest.mark.parametrize("damage", DAMAGES, ids=["content", "type", "version"])
    def test_damaged(self, raw_server: Any, tls: Any, damage: Any, version: str) -> None:
        """A TLS record damaged within the body makes the download resume on a new connection."""
        whole = reply(headers={"ETag": '"e"'}, body=BODY)
        rest = {"ETag": '"e"', "Content-Range": f"bytes 7991-7999/{len(BODY)}"}
        server = raw_server(
            [
                [Recv(), Send(whole[:-9]), damage, Stall()],
                serve(reply(206, rest, BODY[-9:])),
            ],
            tls=tls.server(maximum=ssl.TLSVersion[version]),
        )
        assert content(into_memory(server.url(), quick(), ssl=trust(tls.ca))) == BODY
        assert server.requests[1].header("Range") == "bytes=7991-"

    @pytest.mark.parametrize(
        ("alert", "connections"), [(80, 3), (40, 1)], ids=["internal_error", "handshake_failure"]
    )
    def test_alert(self, raw_server: Any, tls: Any, alert: int, connections: int) -> None:
        """A TLS alert of a failing server is retried; one for incompatible settings isn't."""
        server = raw_server([[Read(5), Send(bytes([21, 3, 3, 0, 2, 2, alert]))]])
        url = server.url().replace("http:", "https:")
        failure(into_memory(url, quick(2), ssl=trust(tls.ca)), DownloadFailed)
        assert server.connections == connections

    def test_in_the_handshake(self, raw_server: Any, tls: Any) -> None:
        """A TLS handshake that is cut is retried and not reported as an untrusted server."""
        server = raw_server([[Cut()]])
        url = server.url().replace("http:", "https:")
        failure(into_memory(url, quick(2), ssl=trust(tls.ca)), DownloadFailed)
        assert server.connections == 3

    def test_stalled_handshake(self, raw_server: Any, tls: Any) -> None:
        """A TLS handshake that stalls ends by the time-out and is retried."""
        server = raw_server([[Stall()]])
        url = server.url().replace("http:", "https:")
        timeout = Timeout(connect=0.2, read=0.2)
        download = into_memory(url, quick(1), ssl=trust(tls.ca), timeout=timeout)
        assert "time-out" in failure(download, DownloadFailed).reason
        # The server may not have noticed it yet.
        server.until(lambda: server.connections >= 2)
        assert server.connections == 2


def test_bytes_behind_the_body(raw_server: Any, tls: Any) -> None:
    """Bytes after a body in the same TLS record are never taken for the next response."""
    head, evil = reply(body=b"hello")[:-5], b"hello" + reply(body=b"EVIL!")
    server = raw_server(
        [[Recv(), Send(head), Send(evil), Stall()], serve(reply(body=b"right"))], tls=tls.server()
    )
    context = Context()
    found = []
    for _ in range(2):
        download = HttpDownload(server.url(), BufferWriter(), ssl=SSL(str(tls.ca)))
        download.context = context
        download()
        found.append(download.writer.getvalue())
    context.close()
    assert found == [b"hello", b"right"]
