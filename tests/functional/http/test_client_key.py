"""Tests of client certificates whose private key is encrypted, and that keys stay off the disk."""

import itertools
import logging
import os
import ssl
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import pytest
from http_tools import chain, content, failure, into_memory
from processes import SOURCE
from servers.files import Redirect
from servers.raw import reply, serve
from servers.tls import FORMATS, PASSWORD, encrypted

from pulpcore.plugin.download.futures import SSL, Batch, DownloadFailed
from pulpcore.plugin.download.futures.context import Context

BODY = b"content " * 1000


@pytest.fixture
def server(file_server: Any, tls: Any) -> Any:
    """Start a server that demands a client certificate."""
    return file_server({"/a": BODY}, tls=tls.server(client_ca=tls.ca))


class TestEncrypted:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_password(self, server: Any, tls: Any, tmp_path: Path, kind: str) -> None:
        """An encrypted client key is used with its password, as a file or as PEM text."""
        client, ca = encrypted(tls.client, tmp_path, kind), str(tls.ca)
        for certificate, key in [
            (str(client.both), None),
            (str(client.both), ""),
            (client.both.read_text(), None),
            (str(client.certificate), str(client.key)),
            (client.certificate.read_text(), client.key.read_text()),
            (str(client.certificate), client.key.read_text()),
            (client.certificate.read_text(), str(client.key)),
        ]:
            settings = SSL(ca, certificate, key, client_key_password=PASSWORD)
            assert content(into_memory(server.url("/a"), ssl=settings)) == BODY

    @pytest.mark.parametrize("password", ["pässwörd ☃", "a b\tc", "x" * 1023])
    def test_odd_passwords(self, server: Any, tls: Any, tmp_path: Path, password: str) -> None:
        """The password of a client key is encoded as UTF-8 and may be as long as OpenSSL allows."""
        client = encrypted(tls.client, tmp_path, password=password)
        settings = SSL(str(tls.ca), str(client.both), client_key_password=password)
        assert content(into_memory(server.url("/a"), ssl=settings)) == BODY

    def test_password_that_is_not_needed(self, server: Any, tls: Any) -> None:
        """A password for a client key that isn't encrypted is ignored."""
        settings = SSL(str(tls.ca), str(tls.client.both), client_key_password=PASSWORD)
        assert content(into_memory(server.url("/a"), ssl=settings)) == BODY

    @pytest.mark.parametrize("password", [None, ""])
    @pytest.mark.parametrize(
        ("separate", "name"), [(True, "client_key: "), (False, "client_certificate: ")]
    )
    def test_none(
        self, server: Any, tls: Any, tmp_path: Path, separate: bool, name: str, password: str | None
    ) -> None:
        """If an encrypted client key has no password, the error names the key and the setting."""
        client = encrypted(tls.client, tmp_path)
        given = (str(client.certificate), str(client.key)) if separate else (str(client.both), None)
        settings = SSL(str(tls.ca), *given, client_key_password=password)
        reason = failure(into_memory(server.url("/a"), ssl=settings), DownloadFailed).reason
        assert name + "the key is encrypted" in reason
        assert "client_key_password" in reason
        assert server.connections == 0

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("password", ["wr0ngSECRET", "wr0ngSECRET" * 100], ids=len)
    def test_wrong(
        self,
        server: Any,
        tls: Any,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        kind: str,
        password: str,
    ) -> None:
        """A wrong or overlong password of a client key is an error that doesn't show it."""
        caplog.set_level(logging.DEBUG)
        client = encrypted(tls.client, tmp_path, kind)
        settings = SSL(str(tls.ca), str(client.both), client_key_password=password)
        error = failure(into_memory(server.url("/a"), ssl=settings), DownloadFailed)
        assert "client_key_password: the key can't be decrypted" in error.reason
        texts = [*traceback.format_exception(error), caplog.text, repr(settings)]
        texts += [f"{item} {item!r}" for item in chain(error)]
        assert all("wr0ng" not in text for text in texts)
        assert server.connections == 0

    def test_key_of_another(self, server: Any, tls: Any, tmp_path: Path) -> None:
        """A decrypted key that doesn't fit the certificate isn't reported as a wrong password."""
        stranger = encrypted(tls.stranger, tmp_path)
        settings = SSL(
            str(tls.ca),
            str(tls.client.certificate),
            str(stranger.key),
            client_key_password=PASSWORD,
        )
        reason = failure(into_memory(server.url("/a"), ssl=settings), DownloadFailed).reason
        assert "client_certificate or client_key: not a certificate with its key" in reason

    def test_shared_by_none(self, server: Any, tls: Any, tmp_path: Path) -> None:
        """Downloads with different key passwords share no connection, so a wrong one fails."""
        client = encrypted(tls.client, tmp_path)
        context = Context()
        found = []
        for password in (PASSWORD, "wrong", None, PASSWORD):
            settings = SSL(str(tls.ca), str(client.both), client_key_password=password)
            download = into_memory(server.url("/a"), ssl=settings)
            download.context = context
            found.append(password is PASSWORD)
            if found[-1]:
                assert content(download) == BODY
            else:
                failure(download, DownloadFailed)
        context.close()
        assert server.connections == 1


@pytest.mark.parametrize("through", [None, "http proxy", "https proxy"])
def test_threads_share_none(
    raw_server: Any, proxy: Any, tls: Any, tmp_path: Path, through: str | None
) -> None:
    """Downloads on 16 threads with different TLS settings share no connection, even by proxy."""
    server = raw_server([serve(reply(body=BODY))], tls=tls.server())
    gate = proxy(tls=tls.server() if through == "https proxy" else None) if through else None
    client, ca = encrypted(tls.client, tmp_path), str(tls.ca)
    kinds = [
        SSL(ca),
        SSL(validation=False),
        SSL(tls.ca.read_text()),
        SSL(ca, str(tls.client.both)),
        SSL(ca, str(client.both), client_key_password=PASSWORD),
        SSL(ca, str(tls.client.both), client_key_password=PASSWORD),
    ]
    downloads = [
        into_memory(
            server.url(f"/{number}"), ssl=kind, proxy_url=None if gate is None else gate.url("")
        )
        for _ in range(25)
        for number, kind in enumerate(kinds)
    ]
    with Batch(downloads, concurrent=16) as batch:
        for plan in batch():
            assert plan.result().writer.getvalue() == BODY
    served = [{request.target for request in log.requests} for log in server.logs]
    assert all(len(targets) <= 1 for targets in served)
    assert set(itertools.chain(*served)) == {f"/{number}" for number in range(len(kinds))}
    # The connections were reused; otherwise the test would prove nothing.
    assert len(server.logs) < len(downloads)
    assert gate is None or len(gate.tunnels) == len(server.logs)


def test_never_on_disk(server: Any, tls: Any, tmp_path: Path) -> None:
    """The PEM texts of a remote are never written to a file, and no descriptor is left open."""
    client = encrypted(tls.client, tmp_path)
    for name in ("work", "home", "tmp"):
        (tmp_path / name).mkdir()
    program = """
        import os, sys
        from types import SimpleNamespace
        from pulpcore.plugin.download.futures import Event, Factory

        url, ca, certificate, key, password, work = sys.argv[1:]
        ca, certificate, key = (open(path).read() for path in (ca, certificate, key))
        written = []

        def audit(event, arguments):
            if event == "open" and isinstance(arguments[0], (str, bytes)):
                path, _, flags = arguments
                if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    written.append(os.fsdecode(path))

        def look(event):
            for entry in os.listdir("/proc/self/fd"):
                try:
                    target = os.readlink(f"/proc/self/fd/{entry}")
                except OSError:
                    continue
                assert "memfd" not in target, "the text is still there"
            looked.append(event)

        looked = []
        remote = SimpleNamespace(ca_cert=ca, client_cert=certificate, client_key=key)
        os.umask(0)
        sys.addaudithook(audit)
        for number in range(2):
            download = Factory(remote).build(url, os.path.join(work, str(number)))
            download.ssl.client_key_password = password
            download.register(Event.REPLIED, look)
            download()
        mine = list(written)
        assert len(looked) == 2
        assert mine, "the audit sees nothing"
        assert {os.path.dirname(path) for path in mine} == {work}, mine
    """
    paths = (tls.ca, client.certificate, client.key)
    subprocess.run(
        [
            *(sys.executable, "-B", "-c", textwrap.dedent(program), server.url("/a")),
            *map(str, paths),
            *(PASSWORD, str(tmp_path / "work")),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path]),
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "tmp"),
        },
        cwd=tmp_path / "work",
        timeout=50,
        check=True,
    )
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path not in paths[2:]]
    assert {path.name for path in left} == {"0", "1", "secret.pem"}
    assert all(path.read_bytes() == BODY for path in left if path.parent.name == "work")


def test_own_context(server: Any, file_server: Any, tls: Any) -> None:
    """A TLS context of the caller's is used as it is, but not for another host.

    A server that redirects doesn't get the other server the client certificate.
    """
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(str(tls.client.certificate), str(tls.client.key))
    settings = SSL(str(tls.ca), context=context)
    assert "context" not in repr(settings)
    download = into_memory(server.url("/a"), ssl=settings)
    download()
    assert content(download) == BODY
    first = file_server({"/a": Redirect(server.url("/a"))}, tls=tls.server(client_ca=tls.ca))
    failure(into_memory(first.url("/a"), ssl=settings))
