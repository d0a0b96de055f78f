"""Tests of the loopback servers, seen by the clients of the standard library."""

import ftplib
import http.client
import io
import os
import signal
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes import program
from servers.ending import Ending
from servers.files import CutAfter, File, FileServer, Hold, Redirect, ResetAfter, StallAfter, Status
from servers.leaks import threads_left
from servers.listener import Listener
from servers.message import basic
from servers.proxy import Proxy
from servers.raw import (
    Close,
    Cut,
    Drip,
    Loop,
    RawServer,
    Read,
    Recv,
    Reset,
    Send,
    Signal,
    Stall,
    Step,
    Wait,
    chunked,
    reply,
    serve,
)
from servers.tls import Certificate, Tls

if TYPE_CHECKING:
    from servers.ftp import FtpServer

SECONDS = 30
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"

MakeRaw = Callable[..., RawServer]
MakeFiles = Callable[..., FileServer]
MakeProxy = Callable[..., Proxy]
MakeFtp = Callable[..., "FtpServer"]


def connect(
    server: Listener, context: ssl.SSLContext | None = None, timeout: float = SECONDS
) -> http.client.HTTPConnection:
    """Make an http.client connection to a server of ours, not yet open."""
    if context is None:
        return http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=timeout, context=context)


def fetch(
    server: Listener,
    path: str = "/",
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send one request on a new connection: return (status, headers, body)."""
    with closing(connect(server, context)) as connection:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def dial(server: Listener) -> socket.socket:
    """Connect a plain socket to a server of ours."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)


def everything(sock: socket.socket) -> bytes:
    """Read to the end of the connection."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def trusting(ca: Path, certificate: Certificate | None = None) -> ssl.SSLContext:
    """Make a client's TLS context that trusts one CA."""
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate.both)
    return context


class TestEnding:
    """Tests of Ending."""

    COMMAND = 'echo "$2" >>"$1"'

    def test_told(self, tmp_path: Path) -> None:
        """Ending.run() runs its command once and returns when the command has ended."""
        path = tmp_path / "done"
        ending = Ending(self.COMMAND, path, "a word")
        assert not path.exists()
        ending.run()
        ending.run()
        assert path.read_text() == "a word\n"

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_killed(self, from_terminal: None, number: int) -> None:
        """Ending runs its command also when the process is killed, by SIGTERM or SIGKILL."""
        code = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from servers.ending import Ending
ending = Ending("echo at the end", stdout=None)
print("begun", flush=True)
signal.pause()
"""
        with program(code, Path(__file__).parents[2] / "support") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(number)
            # Both processes hold this pipe: it ends when the command has ended.
            assert process.communicate(timeout=SECONDS)[0] == "at the end\n"
            assert process.returncode == -number


class TestRaw:
    """Tests of RawServer."""

    def test_answers_and_records(self, raw_server: MakeRaw, no_leaks: None) -> None:
        """RawServer answers each request of a connection and records the request heads."""
        server = raw_server([serve(reply(headers=[("X-A", "1"), ("X-A", "2")], body=b"yes"))])
        with closing(connect(server)) as connection:
            for path in ("/one?q=1", "/two"):
                connection.request("GET", path, headers={"X-Mine": "me"})
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"yes")
                assert answer.headers.get_all("X-A") == ["1", "2"]
        assert server.connections == 1
        assert [item.target for item in server.requests] == ["/one?q=1", "/two"]
        first = server.requests[0]
        assert (first.method, first.path, first.version) == ("GET", "/one", "HTTP/1.1")
        assert first.header("x-mine") == "me"
        assert first.header("absent") is None
        assert ("Host", server.host) in first.headers
        assert first.raw.startswith(b"GET /one?q=1 HTTP/1.1\r\n")

    def test_script_for_each_connection(self, raw_server: MakeRaw) -> None:
        """RawServer plays the next script for each connection, and repeats the last script."""
        server = raw_server([[Recv(), Send(reply(503))], [Recv(), Send(reply(body=b"ok"))]])
        assert [fetch(server)[0] for _ in range(3)] == [503, 200, 200]
        assert server.connections == 3

    def test_script_from_function(self, raw_server: MakeRaw) -> None:
        """RawServer takes scripts and response bytes from functions, too."""
        server = raw_server(
            lambda index: [Recv(), Send(lambda request: reply(200 + index, body=request.raw))]
        )
        assert fetch(server, "/a")[0] == 200
        status, _, body = fetch(server, "/b")
        assert status == 201
        assert body.startswith(b"GET /b ")

    @pytest.mark.parametrize("end", [Close(), Cut()])
    def test_ends_by_fin(self, raw_server: MakeRaw, end: Step) -> None:
        """Close and Cut end a plain connection with FIN, even with unread data."""
        server = raw_server([[Read(4), Send(b"abc"), end, Send(b"never")]])
        with dial(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert everything(sock) == b"abc"
        server.until(lambda: server.logs[0].end == "script")
        log = server.logs[0]
        assert (log.received, log.sent, log.steps) == (b"GET ", 3, [Read(4), Send(b"abc"), end])

    def test_ends_by_reset(self, raw_server: MakeRaw) -> None:
        """The step Reset of RawServer ends the connection with RST."""
        server = raw_server([[Read(until=b"\r\n"), Send(b"abc"), Reset()]])
        with dial(server) as sock:
            sock.sendall(b"hello\r\n")
            with pytest.raises(ConnectionResetError):
                everything(sock)
        assert server.logs[0].received == b"hello\r\n"

    def test_stall_ends_with_client(self, raw_server: MakeRaw) -> None:
        """The step Stall of RawServer sends nothing and ends when the client disconnects."""
        stalled = threading.Event()
        server = raw_server([[Send(b"a"), Signal(stalled), Stall()]])
        with dial(server) as sock:
            assert stalled.wait(SECONDS)
            assert server.open_connections == 1
            assert sock.recv(9) == b"a"
        server.until(lambda: server.logs[0].end)
        assert server.logs[0].end == "client gone"

    @pytest.mark.parametrize(
        "step",
        [
            Stall(),
            Wait(threading.Event()),
            Drip(b"abc", every=60),
            Loop([Send(b"a" * 9999)]),
        ],
        ids=lambda step: type(step).__name__,
    )
    def test_close_ends_any_step(self, no_leaks: None, step: Step) -> None:
        """Closing RawServer ends a script at once, whatever it waits for."""
        with RawServer([[step]]) as server, dial(server):
            server.until(lambda: server.logs)
            begun = time.monotonic()
            server.close()
            assert time.monotonic() - begun < SECONDS
        assert server.logs[0].end == "closing"
        assert server.open_connections == 0

    def test_wait(self, raw_server: MakeRaw) -> None:
        """The step Wait of RawServer continues when the test sets its event."""
        event = threading.Event()
        server = raw_server([[Recv(), Wait(event), Send(reply(body=b"late"))]])
        with closing(connect(server)) as connection:
            connection.request("GET", "/")
            server.until(lambda: server.requests)
            assert server.logs[0].sent == 0
            event.set()
            assert connection.getresponse().read() == b"late"

    def test_drip_and_loop(self, raw_server: MakeRaw) -> None:
        """Drip sends all data piece by piece, and Loop ends after its number of rounds."""
        server = raw_server([[Loop([Drip(b"abcde", every=0.001, size=2)], times=2)]])
        with dial(server) as sock:
            assert everything(sock) == b"abcdeabcde"

    def test_chunked(self, raw_server: MakeRaw) -> None:
        """chunked() makes chunks of the given sizes, which a client joins to the content."""
        coded = chunked(b"abcdefghijklm", [1, 2])
        assert coded == b"1\r\na\r\n2\r\nbc\r\na\r\ndefghijklm\r\n0\r\n\r\n"
        assert chunked(b"ab", end=b"") == b"2\r\nab\r\n"
        server = raw_server([serve(reply(headers={"Transfer-Encoding": "chunked"}, body=coded))])
        assert fetch(server)[2] == b"abcdefghijklm"

    def test_reply(self) -> None:
        """reply() adds one Content-Length, and none where a response must not have it."""
        assert reply(body=b"ab") == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
        assert reply(headers={"content-length": "9"}).count(b"ength") == 1
        assert reply(999, length=False, version="HTTP/1.0") == b"HTTP/1.0 999 Unknown\r\n\r\n"
        assert reply(204, reason="Nothing") == b"HTTP/1.1 204 Nothing\r\n\r\n"

    def test_mistake_in_script_is_raised(self) -> None:
        """Closing RawServer raises the exception that a faulty script caused."""
        server = RawServer([["no step"]])  # type: ignore[list-item]
        with dial(server) as sock:
            everything(sock)
        with pytest.raises(TypeError, match="no step"):
            server.close()

    def test_until_times_out(self, raw_server: MakeRaw) -> None:
        """Waiting for server records that never come raises TimeoutError."""
        server = raw_server([[]])
        with pytest.raises(TimeoutError):
            server.until(lambda: server.connections, 0.01)

    def test_tls_ends(self, raw_server: MakeRaw, tls: Tls) -> None:
        """Over TLS, Close sends a close_notify and Cut doesn't."""
        server = raw_server([[Send(b"abc"), Close()], [Send(b"abc"), Cut()]], tls=tls.server())
        assert server.url("/x").startswith("https://127.0.0.1:")
        context = trusting(tls.ca)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        read: list[bytes | ssl.SSLError] = []
        for _ in range(2):
            with (
                dial(server) as sock,
                context.wrap_socket(
                    sock, server_hostname="localhost", suppress_ragged_eofs=False
                ) as wrapped,
            ):
                try:
                    read.append(everything(wrapped))
                except ssl.SSLError as error:
                    read.append(error)
        assert read[0] == b"abc"
        assert isinstance(read[1], ssl.SSLError)

    def test_cut_in_handshake(self, raw_server: MakeRaw, tls: Tls) -> None:
        """A RawServer script without TLS can end a client's TLS handshake half way."""
        server = raw_server([[Read(1), Reset()]])
        with pytest.raises(ConnectionResetError):
            fetch(server, context=trusting(tls.ca))


class TestFiles:
    """Tests of FileServer."""

    def test_get_head_and_missing(self, file_server: MakeFiles, no_leaks: None) -> None:
        """FileServer answers GET, HEAD and requests for missing files on one connection."""
        server = file_server({"/a": b"abc", "/empty": b"", "/big": b"x" * 300_000})
        with closing(connect(server)) as connection:
            seen = []
            for method, path in [
                ("GET", "/a?q"),
                ("HEAD", "/a"),
                ("GET", "/empty"),
                ("GET", "/big"),
                ("GET", "/none"),
                ("PUT", "/a"),
            ]:
                connection.request(method, path)
                answer = connection.getresponse()
                seen.append((answer.status, answer.headers["Content-Length"], len(answer.read())))
        assert seen == [
            (200, "3", 3),
            (200, "3", 0),
            (200, "0", 0),
            (200, "300000", 300_000),
            (404, "9", 9),
            (405, "11", 11),
        ]
        assert (server.connections, server.most_connections, server.count) == (1, 1, 6)
        assert server.paths == ["/a?q", "/a", "/empty", "/big", "/none", "/a"]

    def test_file_has_headers(self, file_server: MakeFiles) -> None:
        """FileServer sends the headers of a File, whose Date replaces the server's."""
        date = "Sat, 01 Jan 2000 00:00:00 GMT"
        file = File(b"zip", '"e"', date, "gzip", {"X-A": "1", "Date": date}, status=203)
        status, headers, body = fetch(file_server({"/a": file}), "/a")
        assert (status, body) == (203, b"zip")
        assert [headers[name] for name in ("ETag", "Content-Encoding", "X-A")] == [
            '"e"',
            "gzip",
            "1",
        ]
        assert headers.get_all("Date") == headers.get_all("Last-Modified") == [date]

    @pytest.mark.parametrize(
        ("sent", "status", "content_range", "body"),
        [
            ({"Range": "bytes=3-"}, 206, "bytes 3-9/10", b"3456789"),
            ({"Range": "bytes=3-5"}, 206, "bytes 3-5/10", b"345"),
            ({"Range": "bytes=3-99"}, 206, "bytes 3-9/10", b"3456789"),
            ({"Range": "bytes=-2"}, 206, "bytes 8-9/10", b"89"),
            ({"Range": "bytes=10-"}, 416, "bytes */10", b""),
            ({"Range": "bytes=-0"}, 416, "bytes */10", b""),
            ({"Range": "bytes=5-3"}, 200, None, b"0123456789"),
            ({"Range": "bytes=-"}, 200, None, b"0123456789"),
            ({"Range": "lines=1-"}, 200, None, b"0123456789"),
            ({"Range": "bytes=9-", "If-Range": '"e"'}, 206, "bytes 9-9/10", b"9"),
            ({"Range": "bytes=9-", "If-Range": '"f"'}, 200, None, b"0123456789"),
            ({"Range": "bytes=9-", "If-Range": "Sun"}, 206, "bytes 9-9/10", b"9"),
        ],
    )
    def test_ranges(
        self,
        file_server: MakeFiles,
        sent: dict[str, str],
        status: int,
        content_range: str | None,
        body: bytes,
    ) -> None:
        """FileServer answers a valid range with the part and otherwise with the whole file."""
        server = file_server({"/a": File(b"0123456789", etag='"e"', last_modified="Sun")})
        found, headers, content = fetch(server, "/a", sent)
        assert (found, headers["Content-Range"], content) == (status, content_range, body)

    @pytest.mark.parametrize("file", [File(b"abc", etag='W/"e"'), File(b"abc", ranges=False)])
    def test_no_ranges(self, file_server: MakeFiles, file: File) -> None:
        """FileServer ignores a range with a weak validator or for a file without ranges."""
        sent = {"Range": "bytes=1-", "If-Range": 'W/"e"'}
        assert fetch(file_server({"/a": file}), "/a", sent)[::2] == (200, b"abc")

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            ({}, 200),
            ({"If-None-Match": '"e"'}, 304),
            ({"If-None-Match": 'W/"e"'}, 304),
            ({"If-None-Match": '"d", "e"'}, 304),
            ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": '"f"'}, 200),
            ({"If-None-Match": '"f"', "If-Modified-Since": LATER}, 200),
            ({"If-None-Match": '"e"', "If-Modified-Since": EARLIER}, 304),
            ({"If-None-Match": '"e"', "Range": "bytes=1-"}, 304),
            ({"If-None-Match": '"f"', "Range": "bytes=1-"}, 206),
            ({"If-Modified-Since": EARLIER}, 200),
            ({"If-Modified-Since": MODIFIED}, 304),
            ({"If-Modified-Since": LATER}, 304),
        ],
    )
    def test_conditions(self, file_server: MakeFiles, sent: dict[str, str], status: int) -> None:
        """FileServer compares ETags weakly and prefers them to dates (RFC 9110)."""
        server = file_server({"/a": File(b"abc", etag='W/"e"', last_modified=MODIFIED)})
        found, headers, content = fetch(server, "/a", sent)
        assert (found, headers["ETag"]) == (status, 'W/"e"')
        assert content == {200: b"abc", 206: b"bc", 304: b""}[status]

    def test_no_conditions(self, file_server: MakeFiles) -> None:
        """FileServer never answers 304 for a missing file or one without validators."""
        server = file_server({"/a": b"abc", "/b": File(b"", etag='"e"', status=404)})
        sent = {"If-Modified-Since": LATER}
        assert fetch(server, "/a", sent)[0] == 200
        assert fetch(server, "/a", {"If-None-Match": '"e"'})[0] == 200
        assert fetch(server, "/b", {"If-None-Match": '"e"'})[0] == 404

    def test_authentication(self, file_server: MakeFiles) -> None:
        """FileServer answers 401 to requests without the right credentials."""
        server = file_server({"/a": b"abc"}, user=("me", "secret"))
        status, headers, _ = fetch(server, "/a")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="files"')
        assert fetch(server, "/a", {"Authorization": basic("me", "secret")})[0] == 200

    def test_redirect(self, file_server: MakeFiles) -> None:
        """A Redirect of FileServer leads to the file."""
        server = file_server({"/a": Redirect("/b", 307), "/b": b"abc"})
        with urllib.request.urlopen(server.url("/a"), timeout=SECONDS) as answer:
            assert answer.read() == b"abc"
        assert server.paths == ["/a", "/b"]

    def test_faults(self, file_server: MakeFiles) -> None:
        """FileServer applies each fault to the request of its number."""
        faults = {
            0: CutAfter(2),
            1: ResetAfter(2),
            2: Status(503, {"Retry-After": "1"}, b"later"),
            3: CutAfter(0, whole=True),
        }
        server = file_server({"/a": b"abc"}, faults=faults)
        with pytest.raises(http.client.IncompleteRead) as caught:
            fetch(server, "/a")
        assert caught.value.partial == b"ab"
        with pytest.raises(ConnectionResetError):
            fetch(server, "/a")
        status, headers, body = fetch(server, "/a")
        assert (status, headers["Retry-After"], body) == (503, "1", b"later")
        with pytest.raises(http.client.RemoteDisconnected):
            fetch(server, "/a")
        assert fetch(server, "/a")[2] == b"abc"

    def test_stall(self, file_server: MakeFiles) -> None:
        """StallAfter stops within the body, and the connection ends with the client."""
        server = file_server(
            {"/a": b"abc"}, faults=lambda number, request: StallAfter(2) if not number else None
        )
        with closing(connect(server)) as connection:
            connection.request("GET", "/a")
            answer = connection.getresponse()
            assert answer.read(2) == b"ab"
            connection.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                answer.read(1)
            answer.close()
        server.until(lambda: server.open_connections == 0)

    def test_hold(self, file_server: MakeFiles) -> None:
        """FileServer answers a held request only when the test sets the event."""
        event = threading.Event()
        server = file_server({"/a": b"abc"}, faults={0: Hold(event)})
        with closing(connect(server)) as connection:
            connection.request("GET", "/a")
            server.until(lambda: server.count)
            event.set()
            assert connection.getresponse().read() == b"abc"

    def test_closes_on_request(self, file_server: MakeFiles) -> None:
        """FileServer closes the connection of a client that sends Connection: close."""
        server = file_server({"/a": b"abc"})
        with dial(server) as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert everything(sock).endswith(b"\r\n\r\nabc")

    def test_counts_without_record(self, file_server: MakeFiles) -> None:
        """With record=False FileServer counts requests without keeping them."""
        server = file_server({}, record=False)
        fetch(server)
        assert (server.count, server.requests) == (1, [])


class TestTls:
    """Tests of the certificates, with FileServer."""

    @pytest.mark.parametrize("name", ["wrong_name", "expired", "not_yet_valid", "self_signed"])
    def test_bad_certificates(self, file_server: MakeFiles, tls: Tls, name: str) -> None:
        """A client refuses each of the bad certificates, and the server records why."""
        server = file_server({}, tls=tls.server(getattr(tls, name)))
        with pytest.raises(ssl.SSLCertVerificationError):
            fetch(server, context=trusting(tls.ca))
        server.until(lambda: server.failed_handshakes)

    def test_good_certificate(self, file_server: MakeFiles, tls: Tls, no_leaks: None) -> None:
        """A client accepts the good certificate if it trusts the CA that signed it."""
        server = file_server({"/a": b"abc"}, tls=tls.server())
        assert fetch(server, "/a", context=trusting(tls.ca))[2] == b"abc"
        with pytest.raises(ssl.SSLCertVerificationError):
            fetch(server, "/a", context=trusting(tls.other_ca))

    def test_self_signed_can_be_trusted(self, file_server: MakeFiles, tls: Tls) -> None:
        """A client that trusts the self-signed certificate itself accepts it."""
        server = file_server({"/a": b"abc"}, tls=tls.server(tls.self_signed))
        context = trusting(tls.self_signed.certificate)
        assert fetch(server, "/a", context=context)[2] == b"abc"

    @pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_client_certificate(
        self, file_server: MakeFiles, tls: Tls, maximum: ssl.TLSVersion
    ) -> None:
        """A server with a client CA refuses clients without a certificate of that CA."""
        context = tls.server(client_ca=tls.ca, maximum=maximum)
        server = file_server({"/a": b"abc"}, tls=context)
        assert fetch(server, "/a", context=trusting(tls.ca, tls.client))[2] == b"abc"
        for certificate in (None, tls.stranger):
            with pytest.raises(ssl.SSLError):
                fetch(server, "/a", context=trusting(tls.ca, certificate))
        server.until(lambda: len(server.failed_handshakes) == 2)


class TestProxy:
    """Tests of Proxy."""

    def test_forwards(self, proxy: MakeProxy, file_server: MakeFiles, no_leaks: None) -> None:
        """Proxy forwards requests for several hosts on one connection, without its own headers."""
        one, two = file_server({"/a?q=1": b"one"}), file_server({"/": b"x" * 200_000})
        server = proxy(user=("me", "secret"), hosts={"two.example:80": two.port})
        sent = {"Proxy-Authorization": basic("me", "secret")}
        with closing(connect(server)) as connection:
            for target, body in [
                (one.url("/a?q=1"), b"one"),
                ("http://two.example", b"x" * 200_000),
                (one.url("/a?q=1"), b"one"),
            ]:
                connection.request("GET", target, headers=sent)
                assert connection.getresponse().read() == body
        assert (server.connections, len(server.requests)) == (1, 3)
        assert one.requests[0].header("Proxy-Authorization") is None
        assert server.requests[0].header("Proxy-Authorization") == sent["Proxy-Authorization"]
        assert one.paths == ["/a?q=1", "/a?q=1"]

    def test_refuses(self, proxy: MakeProxy) -> None:
        """Proxy refuses clients without a password, hosts off loopback, and non-proxy requests."""
        server = proxy(user=("me", "secret"))
        sent = {"Proxy-Authorization": basic("me", "secret")}
        assert fetch(server, "http://localhost/")[0] == 407
        assert fetch(server, "http://elsewhere.example/", sent)[0] == 502
        assert fetch(server, "/", sent)[0] == 400
        assert len(server.requests) == 3

    @pytest.mark.parametrize("secure", [False, True])
    def test_tunnels(
        self, proxy: MakeProxy, file_server: MakeFiles, tls: Tls, secure: bool
    ) -> None:
        """Proxy opens a CONNECT tunnel to a TLS server by name, also if it speaks TLS itself."""
        files = file_server({"/a": b"x" * 200_000}, tls=tls.server())
        server = proxy(
            tls=tls.server() if secure else None, hosts={"files.example.test:443": files.port}
        )
        context = trusting(tls.ca)
        near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = context.wrap_bio(near, far, server_hostname="files.example.test")
        with (
            dial(server) as sock,
            context.wrap_socket(sock, server_hostname="localhost") if secure else sock as link,
        ):
            link.sendall(b"CONNECT files.example.test:443 HTTP/1.1\r\n\r\n")
            assert link.recv(65536).startswith(b"HTTP/1.1 200 ")

            def drive(action: Callable[..., Any], *args: object) -> Any:
                while True:
                    try:
                        return action(*args)
                    except ssl.SSLWantReadError:
                        if far.pending:
                            link.sendall(far.read())
                        near.write(link.recv(65536))

            drive(inner.do_handshake)
            inner.write(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n")
            content = b"".join(iter(lambda: drive(inner.read, 65536), b""))
        assert content.endswith(b"\r\n\r\n" + b"x" * 200_000)
        assert server.tunnels == ["files.example.test:443"]

    def test_refuses_tunnel(self, proxy: MakeProxy) -> None:
        """With refuse_connect Proxy answers CONNECT with 403."""
        server = proxy(refuse_connect=True)
        with closing(connect(server)) as connection:
            connection.set_tunnel("127.0.0.1", 443)
            with pytest.raises(OSError, match="403"):
                connection.request("GET", "/")
        assert (server.requests[0].method, server.tunnels) == ("CONNECT", [])

    def test_hands_on_a_fault(self, proxy: MakeProxy, raw_server: MakeRaw) -> None:
        """Proxy passes on a response that is cut or reset in the same way."""
        bad = reply(body=b"abc")[:-1]
        upstream = raw_server([[Recv(), Send(bad)], [Recv(), Send(bad), Reset()]])
        server = proxy()
        with pytest.raises(http.client.IncompleteRead):
            fetch(server, upstream.url())
        with pytest.raises(ConnectionResetError):
            fetch(server, upstream.url())


class TestFtp:
    """Tests of FtpServer."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Create a folder with one file in a subfolder."""
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "a").write_bytes(b"x" * 300_000)
        return tmp_path

    @staticmethod
    def fetch(
        server: "FtpServer",
        login: tuple[str, ...] = (),
        path: str = "/sub/a",
        rest: int | None = None,
    ) -> bytes:
        """Return the bytes of a file."""
        content = io.BytesIO()
        with ftplib.FTP(timeout=SECONDS) as ftp:
            ftp.connect("127.0.0.1", server.port)
            ftp.login(*login)
            ftp.retrbinary(f"RETR {path}", content.write, rest=rest)
        return content.getvalue()

    def test_anonymous(self, ftp_server: MakeFtp, folder: Path, no_leaks: None) -> None:
        """FtpServer serves anonymous users a file or its rest, and 550 for a missing one."""
        server = ftp_server(folder)
        assert server.url("/sub/a", "me:pw") == f"ftp://me:pw@127.0.0.1:{server.port}/sub/a"
        assert len(self.fetch(server)) == 300_000
        assert len(self.fetch(server, rest=299_999)) == 1
        with pytest.raises(ftplib.error_perm, match="550"):
            self.fetch(server, path="/none")
        assert server.connections == 3
        assert ("RETR", "/sub/a") in server.commands
        assert ("REST", "299999") in server.commands

    def test_users(self, ftp_server: MakeFtp, folder: Path) -> None:
        """With users given, FtpServer accepts only them with their passwords."""
        server = ftp_server(folder, {"me": "secret"})
        assert len(self.fetch(server, ("me", "secret"))) == 300_000
        for login in [(), ("me", "wrong")]:
            with pytest.raises(ftplib.error_perm, match="530"):
                self.fetch(server, login)

    def test_cut(self, ftp_server: MakeFtp, folder: Path) -> None:
        """A cut transfer of FtpServer ends after its bytes, with 426 or a false 226."""
        from servers.ftp import Cut as FtpCut

        server = ftp_server(folder, cuts={0: FtpCut(100_001), 1: FtpCut(5, claim=True)})
        with pytest.raises(ftplib.error_temp, match="426"):
            self.fetch(server)
        assert len(self.fetch(server)) == 5
        assert len(self.fetch(server)) == 300_000
        assert server.transfers == 3

    def test_close_with_client(self, ftp_server: MakeFtp, folder: Path, no_leaks: None) -> None:
        """Closing FtpServer also ends a client that is still connected."""
        server = ftp_server(folder)
        with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as sock:
            assert sock.recv(99).startswith(b"220")
            server.close()
            assert everything(sock) == b""


class TestGuards:
    """Tests of the fixtures that every test gets."""

    def test_environment(self) -> None:
        """No test sees a proxy, CA bundle or netrc of the user, and HOME is empty."""
        assert urllib.request.getproxies() == {}
        assert not os.environ.keys() & {"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NETRC"}
        assert list(Path.home().iterdir()) == []

    def test_threads_left(self) -> None:
        """The leak check reports a thread that is still alive, unless a test server owns it."""
        before = threading.enumerate()
        event = threading.Event()
        thread = threading.Thread(target=event.wait, name="mine")
        thread.start()
        try:
            with Listener():
                (found,) = threads_left(before, 0.01)
        finally:
            event.set()
            thread.join()
        assert found.startswith("mine\n")
        assert "wait" in found
        assert threads_left(before) == []
