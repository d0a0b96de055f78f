"""Tests of reading raw HTTP responses: the corpus and worse ones."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from replies import CHUNKS, HELLO, ROWS, Row, framed, with_chunks, with_length
from servers.proxy import Proxy
from servers.raw import (
    Close,
    Cut,
    Drip,
    Loop,
    RawServer,
    Recv,
    Reset,
    Send,
    Stall,
    Wait,
    serve,
)
from servers.tls import Tls

from pulpcore.plugin.download.futures import (
    SSL,
    BufferWriter,
    DownloadError,
    DownloadFailed,
    FileWriter,
    HttpDownload,
    SizeValidation,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.validation import SizeMismatch

MakeRaw = Callable[..., RawServer]

OLD = b"the old file"
CLOSED = framed()
WORLD = with_length(b"5", b"world")


def run(url: str, folder: Path, ssl: SSL | None = None, **options: object) -> bytes | DownloadError:
    """Download to an old file. Return the new content, or the error after checking the old file."""
    path = folder / "file"
    path.write_bytes(OLD)
    download = HttpDownload(url, FileWriter(path), ssl=ssl, timeout=Timeout(60, 60), **options)
    download.retry = None
    result: bytes | DownloadError
    try:
        download()
    except DownloadError as error:
        assert path.read_bytes() == OLD
        result = error
    else:
        result = path.read_bytes()
    assert [entry.name for entry in folder.iterdir()] == ["file"]
    return result


def check(result: bytes | DownloadError, row: Row) -> None:
    """Compare the result with the corpus."""
    if isinstance(row.expected, bytes):
        assert result == row.expected
        return
    assert type(result) is row.expected.kind
    with pytest.raises(row.expected.kind, match=row.expected.reason):
        raise result


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
class TestCorpus:
    def test_at_once(self, row: Row, raw_server: MakeRaw, tmp_path: Path) -> None:
        """Each response of the corpus gives its body or error when it arrives at once."""
        server = raw_server([[Recv(), Send(row.raw), Close() if row.ends else Stall()]])
        check(run(server.url(row.path), tmp_path), row)
        assert server.connections == 1

    def test_byte_by_byte(self, row: Row, raw_server: MakeRaw, tls: Tls, tmp_path: Path) -> None:
        """Each response of the corpus gives the same result when it arrives byte by byte."""
        # The client reads one TLS record, here one byte, at a time. Plain bytes may be joined.
        pieces = Drip(row.raw, every=0, size=len(row.raw) // 1000 + 1)
        server = raw_server([[Recv(), pieces, Close()]], tls=tls.server())
        check(run(server.url(row.path), tmp_path, SSL(str(tls.ca))), row)

    @pytest.mark.parametrize("tunnel", [False, True], ids=["forwarded", "tunnel"])
    def test_through_a_proxy(
        self,
        row: Row,
        tunnel: bool,
        raw_server: MakeRaw,
        proxy: Callable[..., Proxy],
        tls: Tls,
        tmp_path: Path,
    ) -> None:
        """Each response of the corpus gives the same result through a proxy or a tunnel."""
        server = raw_server(
            [[Recv(), Send(row.raw), Close() if row.ends else Stall()]],
            tls=tls.server() if tunnel else None,
        )
        gate = proxy()
        url = server.url(row.path)
        check(run(url, tmp_path, SSL(str(tls.ca)), proxy_url=gate.url("")), row)
        assert [request.method for request in gate.requests] == ["CONNECT" if tunnel else "GET"]
        assert server.connections == 1


def test_names() -> None:
    """Each row of the corpus of raw responses has a unique name."""
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))


FRAMINGS = {"length": with_length(b"5"), "chunks": with_chunks(CHUNKS), "close": CLOSED}


@pytest.mark.parametrize("framing", FRAMINGS)
class TestCut:
    @pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
    def test_at_each_byte(
        self, framing: str, end: Close | Reset, raw_server: MakeRaw, tmp_path: Path
    ) -> None:
        """A response cut at any byte is an error, unless the cut can't be detected."""
        raw = FRAMINGS[framing]
        server = raw_server(lambda index: [Recv(), Send(raw[:index]), end])
        for size in range(len(raw)):
            result = run(server.url(), tmp_path)
            head, _, body = raw[:size].partition(b"\r\n\r\n")
            if framing == "close" and isinstance(end, Close) and b"\r\n\r\n" in raw[:size]:
                assert result == body
            else:
                assert type(result) is DownloadFailed, (size, head, result)
                assert result.transient, size

    def test_at_each_byte_of_tls(
        self, framing: str, raw_server: MakeRaw, tls: Tls, tmp_path: Path
    ) -> None:
        """A response over TLS without a close_notify was cut (RFC 9112 section 9.8)."""
        raw = FRAMINGS[framing]
        server = raw_server(lambda index: [Recv(), Send(raw[:index]), Cut()], tls=tls.server())
        # If the body marks its own end, that suffices.
        for size in range(len(raw) + (framing == "close")):
            result = run(server.url(), tmp_path, SSL(str(tls.ca)))
            assert isinstance(result, DownloadFailed), (raw[:size], result)

    def test_in_pieces(self, framing: str, raw_server: MakeRaw, tmp_path: Path) -> None:
        """A response that arrives in pieces of any size is read as if it arrived at once."""
        raw = FRAMINGS[framing]
        server = raw_server(lambda index: [Recv(), Drip(raw, every=0.001, size=index + 1)])
        for _ in range(len(raw)):
            assert run(server.url(), tmp_path) == HELLO

    def test_split_anywhere(
        self, framing: str, raw_server: MakeRaw, tls: Tls, tmp_path: Path
    ) -> None:
        """A response split in two at any byte is read as if it arrived at once."""
        raw = FRAMINGS[framing]
        server = raw_server(
            lambda index: [Recv(), Send(raw[: index + 1]), Send(raw[index + 1 :]), Close()],
            tls=tls.server(),
        )
        for _ in range(len(raw) - 1):
            assert run(server.url(), tmp_path, SSL(str(tls.ca))) == HELLO


EXTRA = {
    "nothing": b"",
    "a byte": b"x",
    "a line end": b"\r\n",
    "a reply": with_length(b"5", b"evil!"),
    "an interim reply": b"HTTP/1.1 100 Continue\r\n\r\n",
    "garbage": b"\0\xff" * 40_000,
}
FIRST = {
    "length": (with_length(b"5"), HELLO),
    "length 0": (with_length(b"0", b""), b""),
    "chunks": (with_chunks(CHUNKS), HELLO),
    "204": (b"HTTP/1.1 204 X\r\n\r\n", None),
    "304": (b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", None),
    "404": (b"HTTP/1.1 404 X\r\nContent-Length: 5\r\n\r\nhello", None),
}


class TestExtraBytes:
    """Bytes that follow a body belong to no response."""

    @staticmethod
    def download(context: Context, url: str, method: str = "GET") -> bytes | None:
        """Return the content of a download with a shared context, or None if it fails."""
        download = HttpDownload(url, BufferWriter(), method, timeout=Timeout(60, 60))
        download.context, download.retry = context, None
        try:
            download()
        except DownloadFailed:
            return None
        return download.writer.getvalue()

    @pytest.mark.parametrize("extra", EXTRA)
    @pytest.mark.parametrize("late", [False, True], ids=["with it", "later"])
    @pytest.mark.parametrize("first", FIRST)
    def test_next_download(self, first: str, extra: str, late: bool, raw_server: MakeRaw) -> None:
        """After a response with extra bytes the next download still gets its own response."""
        raw, expected = FIRST[first]
        more = EXTRA[extra]
        go = threading.Event()
        begin = [Send(raw), Wait(go), Send(more)] if late else [Send(raw + more)]
        server = raw_server([[Recv(), *begin, *serve(WORLD)], serve(WORLD)])
        with Context() as context:
            assert self.download(context, server.url("/first")) == expected
            go.set()
            server.until(lambda: server.logs[0].sent == len(raw + more) or server.logs[0].end)
            assert self.download(context, server.url("/second")) == b"world"
            assert self.download(context, server.url("/third")) == b"world"
            assert server.connections == (2 if more else 1)
            context.close()

    @pytest.mark.parametrize("extra", [HELLO, with_length(b"5", b"evil!")], ids=["body", "reply"])
    def test_head_with_a_body(self, extra: bytes, raw_server: MakeRaw) -> None:
        """A body sent in response to HEAD isn't taken for the next response."""
        server = raw_server([[Recv(), Send(with_length(b"5", b"") + extra), Stall()], serve(WORLD)])
        context = Context()
        assert self.download(context, server.url("/first"), "HEAD") == b""
        assert self.download(context, server.url("/second")) == b"world"
        context.close()

    def test_redirect(self, raw_server: MakeRaw) -> None:
        """Extra bytes after a redirect aren't taken for the response of its target."""
        moved = b"HTTP/1.1 302 X\r\nLocation: /b\r\nContent-Length: 5\r\n\r\nhello"
        evil = with_length(b"5", b"evil!")
        server = raw_server([[Recv(), Send(moved + evil), *serve(evil)], serve(WORLD)])
        context = Context()
        assert self.download(context, server.url("/a")) == b"world"
        context.close()

    @pytest.mark.parametrize(
        "raw",
        [
            with_chunks(CHUNKS, b"Content-Length: 5"),
            framed(b"Content-Length: 5", b"Connection: close"),
            framed(b"Content-Length: 5", b"Connection: x, Close"),
            framed(b"Content-Length: 5", b"Connection: x", b"Connection: close"),
            framed(b"Content-Length: 5", start=b"HTTP/1.0 200 OK\r\n"),
            framed(b"Transfer-Encoding: chunked", body=CHUNKS, start=b"HTTP/1.0 200 OK\r\n"),
            with_length(b"-5"),
            with_chunks(CHUNKS.replace(b"\r\n", b"\n")),
        ],
        ids=["TE+CL", "close", "x, Close", "x and close", "1.0", "1.0 chunked", "bad", "bad chunk"],
    )
    def test_no_reuse(self, raw: bytes, raw_server: MakeRaw) -> None:
        """A connection isn't reused if the response says so or its framing is untrustworthy."""
        server = raw_server([[Recv(), Send(raw), *serve(WORLD)], serve(WORLD)])
        context = Context()
        self.download(context, server.url("/first"))
        assert self.download(context, server.url("/second")) == b"world"
        assert server.connections == 2
        context.close()

    @pytest.mark.parametrize(
        "raw",
        [
            with_length(b"5"),
            with_chunks(CHUNKS),
            framed(b"Content-Length: 5", b"Connection: Keep-Alive", start=b"HTTP/1.0 200 OK\r\n"),
            b"HTTP/1.1 103 X\r\nConnection: close\r\n\r\n" + with_length(b"5"),
        ],
        ids=["length", "chunks", "1.0 keep-alive", "interim"],
    )
    def test_reuse(self, raw: bytes, raw_server: MakeRaw) -> None:
        """A connection is reused after a complete response that allows keep-alive."""
        server = raw_server([serve(raw)])
        context = Context()
        assert [self.download(context, server.url()) for _ in range(3)] == [HELLO] * 3
        assert server.connections == 1
        context.close()


ENDLESS: dict[str, tuple[bytes, bytes, str]] = {
    "fields": (b"HTTP/1.1 200 OK\r\n", b"A: " + b"b" * 999 + b"\r\n", "head is longer"),
    "one field": (b"HTTP/1.1 200 OK\r\nA: ", b"b" * 999, "head is longer"),
    "folds": (b"HTTP/1.1 200 OK\r\nA: b\r\n", b" c\r\n" * 99, "head is longer"),
    "reason": (b"HTTP/1.1 200 ", b"b" * 999, "head is longer"),
    "line ends": (b"", b"\r\n" * 99, "status line|HTTP/"),
    "no HTTP": (b"<html>", b"x" * 999, "HTTP/"),
    "interim replies": (b"", b"HTTP/1.1 103 X\r\nA: b\r\n\r\n", "interim replies"),
    "digits of a chunk": (with_chunks(b""), b"0" * 999, "longer than"),
    "extension": (with_chunks(b"5;"), b"a" * 999, "longer than"),
    "line end of a chunk": (with_chunks(b"1\r\nx"), b"x" * 999, "longer"),
    "trailers": (with_chunks(b"0\r\n"), b"A: b\r\n" * 99, "trailers are longer"),
    "trailer": (with_chunks(b"0\r\nA: "), b"b" * 999, "longer than"),
    "404": (b"HTTP/1.1 404 X\r\n\r\n", b"x" * 9999, "replied 404"),
    "404 in chunks": (
        b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n" * 99,
        "replied 404",
    ),
    "206": (b"HTTP/1.1 206 X\r\n\r\n", b"x" * 9999, "not asked for"),
}


class TestEndless:
    @pytest.mark.parametrize("name", ENDLESS)
    def test_is_given_up(self, name: str, raw_server: MakeRaw, tmp_path: Path) -> None:
        """A response head or framing that never ends fails after a bounded number of bytes."""
        start, more, reason = ENDLESS[name]
        server = raw_server([[Recv(), Send(start), Loop([Send(more)])]])
        result = run(server.url(), tmp_path)
        assert isinstance(result, DownloadFailed)
        assert result.reason
        with pytest.raises(DownloadFailed, match=reason):
            raise result
        server.until(lambda: server.logs[0].end)
        assert server.logs[0].sent < 16 << 20  # most of it is in the system's buffers

    def test_redirect(self, raw_server: MakeRaw, tmp_path: Path) -> None:
        """An endless body of a redirect isn't read."""
        moved = b"HTTP/1.1 302 X\r\nLocation: /b\r\n\r\n"
        server = raw_server([[Recv(), Send(moved), Loop([Send(b"x" * 9999)])], serve(WORLD)])
        assert run(server.url(), tmp_path) == b"world"

    @pytest.mark.parametrize("framing", ["length", "chunks", "close"])
    def test_body(self, framing: str, raw_server: MakeRaw, tmp_path: Path) -> None:
        """An endless body fails as soon as it exceeds the expected size."""
        start, more = {
            "length": (with_length(b"9" * 18, b""), b"x" * 9999),
            "chunks": (with_chunks(b""), b"5\r\nhello\r\n" * 999),
            "close": (framed(body=b""), b"x" * 9999),
        }[framing]
        server = raw_server([[Recv(), Send(start), Loop([Send(more)])]])
        path = tmp_path / "file"
        path.write_bytes(OLD)
        download = HttpDownload(server.url(), FileWriter(path))
        download.validations.append(SizeValidation(1 << 20))
        with pytest.raises(SizeMismatch, match="there are more"):
            download()
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
        assert path.read_bytes() == OLD
        assert download.position <= 1 << 20
        assert server.connections == 1


STALLED = {
    "no HTTP": b"SSH-2",
    "chunk longer than its size": with_chunks(b"3\r\nhello"),
    "chunk without its end": with_chunks(b"5\r\nhello5\r"),
    "length": with_length(b"x", b""),
    "coding": framed(b"Transfer-Encoding: x", body=b""),
    "404 whose body stalls": b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\n",
}


class TestPatience:
    """An invalid response is refused at once instead of after the time-out."""

    @pytest.mark.parametrize("name", STALLED)
    def test_refused_at_once(self, name: str, raw_server: MakeRaw, tmp_path: Path) -> None:
        """An invalid response fails long before the read time-out of a minute."""
        server = raw_server([[Recv(), Send(STALLED[name]), Stall()]])
        began = time.monotonic()
        result = run(server.url(), tmp_path)
        assert isinstance(result, DownloadFailed)
        assert "time-out" not in result.reason
        assert time.monotonic() - began < 50

    @pytest.mark.parametrize("name", ["length", "chunks", "close"])
    def test_stall(self, name: str, raw_server: MakeRaw, tmp_path: Path) -> None:
        """An incomplete response that may still become valid fails by the read time-out."""
        server = raw_server([[Recv(), Send(FRAMINGS[name][:-1]), Stall()]])
        path = tmp_path / "file"
        download = HttpDownload(server.url(), FileWriter(path), timeout=Timeout(5, 0.1))
        download.retry = None
        with pytest.raises(DownloadFailed, match="within the read time-out"):
            download()
        assert not list(tmp_path.iterdir())
