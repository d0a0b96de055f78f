"""Tests of unrequested Content-Encoding, which is decoded unless the file is published so."""

import gzip
import hashlib
import zlib
from typing import Any

import pytest
from http_tools import content, failure, into_memory, names, quick, record
from servers.files import CutAfter, File, Redirect
from servers.raw import Drip, Recv, Send, chunked, reply

from pulpcore.plugin.download.futures import (
    DigestMismatch,
    DigestValidation,
    DownloadFailed,
    DownloadMonitor,
    Event,
    HttpDownload,
    SizeMismatch,
    SizeValidation,
)


def zipped(data: bytes) -> bytes:
    """Compress data with gzip.

    The result is always the same, so that parameters of tests don't change.
    """
    return gzip.compress(data, 9, mtime=0)


TEXT = b"content, " * 30000
GZIP = zipped(TEXT)
ZLIB = zlib.compress(TEXT)
RAW = ZLIB[2:-4]
ENCODED = [Recv(), Send(reply(headers={"Content-Encoding": "gzip"}, body=GZIP))]


def served(file_server: Any, path: str, body: bytes, coding: str, **options: Any) -> Any:
    """Start a server of one encoded file."""
    return file_server({path: File(body, content_encoding=coding, **options)})


class TestPublished:
    """A server that labels a published compressed file: its bytes stay as they are."""

    @pytest.mark.parametrize(
        "path",
        ["/a.gz", "/a.tar.GZ", "/a.tgz", "/a.svgz", "/a.gz?x=y", "/a.txt.gz#f", "/x.crate"],
    )
    @pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZip"])
    def test_by_name(self, file_server: Any, path: str, coding: str) -> None:
        """A URL that ends in .gz keeps the gzip bytes of a response labelled gzip."""
        server = served(file_server, path.partition("?")[0].partition("#")[0], GZIP, coding)
        assert content(into_memory(server.url(path))) == GZIP

    @pytest.mark.parametrize(
        "media", ["application/gzip", "application/x-gzip; charset=x", "APPLICATION/X-GZIP"]
    )
    def test_by_type(self, file_server: Any, media: str) -> None:
        """A media type of compressed files keeps the gzip bytes of the response."""
        server = served(file_server, "/a", GZIP, "gzip", headers={"Content-Type": media})
        assert content(into_memory(server.url("/a"))) == GZIP

    @pytest.mark.parametrize(("first", "last"), [("/a.gz", "/cdn/123"), ("/latest", "/a.gz")])
    def test_by_redirect(self, file_server: Any, first: str, last: str) -> None:
        """The file names before and after a redirect both decide whether gzip is decoded."""
        files = {first: Redirect(last), last: File(GZIP, content_encoding="gzip")}
        assert content(into_memory(file_server(files).url(first))) == GZIP

    @pytest.mark.parametrize(
        ("path", "coding"),
        [
            ("/a.br", "br"),
            ("/a.zst", "zstd"),
            ("/a.Z", "compress"),
            ("/a.zz", "deflate"),
            ("/a.bz2", "bzip2"),
            ("/a.tar.xz", "x-xz"),
        ],
    )
    def test_other_codings(self, file_server: Any, path: str, coding: str) -> None:
        """A file name such as x.br keeps the bytes of that coding, without its library."""
        server = served(file_server, path, b"anything", coding)
        assert content(into_memory(server.url(path))) == b"anything"

    def test_name_of_another(self, file_server: Any) -> None:
        """A file name that stands for another coding doesn't prevent decoding."""
        server = served(file_server, "/a.br", GZIP, "gzip")
        assert content(into_memory(server.url("/a.br"))) == TEXT

    def test_twice(self, file_server: Any) -> None:
        """A published .gz file that was gzipped again for transfer is decoded once."""
        server = served(file_server, "/a.gz", zipped(GZIP), "gzip, gzip")
        assert content(into_memory(server.url("/a.gz"))) == GZIP

    def test_by_disposition(self, file_server: Any) -> None:
        """A .gz file name in Content-Disposition keeps the gzip bytes of the response."""
        headers = {"Content-Disposition": 'attachment; filename="a.tar.gz"'}
        server = served(file_server, "/get", GZIP, "gzip", headers=headers)
        assert content(into_memory(server.url("/get"))) == GZIP

    def test_by_size(self, file_server: Any) -> None:
        """If the Content-Length equals the expected size, an encoded file isn't decoded."""
        server = served(file_server, "/blobs/sha256:01", GZIP, "x-gzip", etag='"e"')
        server.faults = {0: CutAfter(20)}
        download = into_memory(server.url("/blobs/sha256:01"), quick())
        digest = hashlib.sha256(GZIP).hexdigest()
        download.validations += [SizeValidation(len(GZIP)), DigestValidation("sha256", digest)]
        assert content(download) == GZIP
        assert server.requests[1].header("Range") == "bytes=20-"

    def test_label_twice(self, raw_server: Any) -> None:
        """A Content-Encoding field that is repeated counts once."""
        headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
        server = raw_server([[Recv(), Send(reply(headers=headers, body=GZIP))]])
        assert content(into_memory(server.url())) == TEXT

    def test_resumes(self, file_server: Any) -> None:
        """A published compressed file resumes like any other file."""
        server = served(file_server, "/a.gz", GZIP, "gzip", etag='"e"')
        server.faults = {0: CutAfter(20)}
        assert content(into_memory(server.url("/a.gz"), quick())) == GZIP
        assert server.requests[1].header("Range") == "bytes=20-"


class TestCompressed:
    """A server that compresses whatever it sends: the content is decoded."""

    def test_by_handler(self, raw_server: Any) -> None:
        """If a handler of Replied adds a missing Content-Encoding, the content is decoded."""
        server = raw_server([[Recv(), Send(reply(body=GZIP))]])
        download = into_memory(server.url())
        coding = {"Content-Encoding": "gzip"}
        download.register(Event.REPLIED, lambda event: event.download.reply.headers.update(coding))
        assert content(download) == TEXT

    @pytest.mark.parametrize("method", ["length", "chunked", "close"])
    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", GZIP),
            ("x-gzip", GZIP),
            ("GZIP", GZIP),
            ("deflate", ZLIB),
            ("deflate", RAW),
            ("identity, gzip", GZIP),
            (",gzip,", GZIP),
            ("gzip, deflate", zlib.compress(GZIP)),
            ("deflate, gzip", zipped(RAW)),
        ],
    )
    def test_decoded(self, raw_server: Any, coding: str, body: bytes, method: str) -> None:
        """Gzip and both kinds of deflate are decoded, as often as they were applied."""
        headers = {"Content-Encoding": coding}
        if method == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            body = chunked(body, [1, 2, 3])
        server = raw_server(
            [[Recv(), Send(reply(headers=headers, body=body, length=method == "length"))]]
        )
        download = into_memory(server.url("/a.txt"))
        monitor = DownloadMonitor(download, ["sha256"])
        digest = hashlib.sha256(TEXT).hexdigest()
        download.validations += [SizeValidation(len(TEXT)), DigestValidation("sha256", digest)]
        assert content(download) == TEXT
        assert monitor.facts() == {"size": len(TEXT), "sha256": digest}

    def test_several_headers(self, raw_server: Any) -> None:
        """Content codings in several header fields are all decoded."""
        headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "deflate")]
        server = raw_server([[Recv(), Send(reply(headers=headers, body=zlib.compress(GZIP)))]])
        assert content(into_memory(server.url())) == TEXT

    @pytest.mark.parametrize("body", [GZIP, ZLIB, RAW])
    def test_byte_by_byte(self, raw_server: Any, body: bytes) -> None:
        """Encoded content that arrives byte by byte is decoded."""
        coding = "gzip" if body == GZIP else "deflate"
        whole = reply(headers={"Content-Encoding": coding}, body=body)
        start = len(whole) - len(body)
        steps = [
            Send(whole[:start]),
            Drip(whole[start : start + 20], 0.001),
            Send(whole[start + 20 :]),
        ]
        server = raw_server([[Recv(), *steps]])
        assert content(into_memory(server.url())) == TEXT

    def test_members(self, file_server: Any) -> None:
        """A gzip body with several members is decoded completely."""
        server = served(file_server, "/a", GZIP + zipped(b"") + GZIP, "gzip")
        assert content(into_memory(server.url("/a"))) == TEXT * 2

    @pytest.mark.parametrize(
        ("coding", "body"), [("gzip", zipped(b"")), ("deflate", zlib.compress(b""))]
    )
    def test_empty(self, file_server: Any, coding: str, body: bytes) -> None:
        """The encoding of an empty file is decoded to an empty file."""
        assert content(into_memory(served(file_server, "/a", body, coding).url("/a"))) == b""

    @pytest.mark.parametrize("method", ["length", "chunked", "close"])
    @pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, deflate"])
    def test_nothing(self, raw_server: Any, coding: str, method: str) -> None:
        """An empty body is an empty file with any Content-Encoding and framing."""
        headers = {"Content-Encoding": coding}
        body = b""
        if method == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            body = chunked(b"", [])
        server = raw_server(
            [[Recv(), Send(reply(headers=headers, body=body, length=method == "length"))]]
        )
        assert content(into_memory(server.url())) == b""

    @pytest.mark.parametrize("coding", ["br", "zstd"])
    def test_by_a_library(self, file_server: Any, coding: str) -> None:
        """If their libraries are installed, brotli and Zstandard are decoded, too."""
        if coding == "br":
            body = pytest.importorskip("brotli").compress(TEXT)
        else:
            body = pytest.importorskip("zstandard").ZstdCompressor().compress(TEXT)
        server = served(file_server, "/a", body, coding)
        assert content(into_memory(server.url("/a"))) == TEXT

    @pytest.mark.parametrize("coding", ["", "identity", "Identity, identity"])
    def test_none(self, file_server: Any, coding: str) -> None:
        """Content-Encoding: identity changes nothing."""
        server = file_server({"/a": File(GZIP, headers={"Content-Encoding": coding})})
        assert content(into_memory(server.url("/a"))) == GZIP

    def test_bomb(self, file_server: Any) -> None:
        """A decompression bomb is decoded in bounded pieces and stopped at the expected size."""
        bomb = zipped(bytes(50_000_000))
        download = into_memory(served(file_server, "/a", bomb, "gzip").url("/a"))
        download.validations.append(SizeValidation(1_000_000))
        events = record(download)
        failure(download)
        sizes = [len(event.buffer) for event in events if event.NAME == "FETCHED"]
        assert max(sizes) <= 128 * 1024
        assert sum(sizes) <= 1_000_000

    def test_bomb_of_unknown_size(self, file_server: Any) -> None:
        """Without an expected size, a decompression bomb fails and leaves no file."""
        server = served(file_server, "/a", zipped(bytes(80_000_000)), "gzip")
        download = into_memory(server.url("/a"), quick())
        error = failure(download)
        assert type(error) is DownloadFailed
        assert "compression bomb" in error.reason
        assert "SizeValidation" in error.reason
        assert server.count == 1
        assert download.position <= 64 * 1024 * 1024
        assert download.writer.getvalue() == b""

    @pytest.mark.parametrize("how", ["expected", "ratio", "none"])
    def test_no_bomb(self, file_server: Any, how: str) -> None:
        """Highly compressed content is decoded if its size is expected or the limit allows it."""
        size = 80_000_000
        server = served(file_server, "/a", zipped(bytes(size)), "gzip")
        download = HttpDownload(server.url("/a"), None)
        if how == "expected":
            download.validations.append(SizeValidation(size))
        else:
            download.expansion_max = None if how == "none" else 1100
        download()
        assert download.position == size

    @pytest.mark.parametrize("value", ["200", 0, -1, True, float("nan")])
    def test_no_limit_that_can_be(self, file_server: Any, value: Any) -> None:
        """An invalid decompression limit is refused before anything is sent."""
        server = served(file_server, "/a", GZIP, "gzip")
        download = into_memory(server.url("/a"))
        download.expansion_max = value
        assert "expansion_max: must be a number above 0" in failure(download).reason
        assert server.count == 0

    def test_cut(self, file_server: Any) -> None:
        """An interrupted encoded response restarts from 0, because its offsets can't be resumed."""
        server = served(file_server, "/a", GZIP, "gzip", etag='"e"')
        server.faults = {0: CutAfter(len(GZIP) - 9)}
        download = into_memory(server.url("/a"), quick())
        events = record(download)
        assert content(download) == TEXT
        assert server.requests[1].header("Range") is None
        assert names(events).count("RESTARTED") == 1


class TestDigestOnly:
    """Only a digest can tell whether the file is what was sent or what comes out of the decoder."""

    def download(self, tmp_path: Any, server: Any, digest: str, enforced: bool = True) -> Any:
        """A download over an old file, with a SHA-256 digest to validate and without retries."""
        (tmp_path / "blob").write_bytes(b"old")
        download = HttpDownload(server.url("/blobs/1"), tmp_path / "blob")
        download.retry, download.retries = None, 0
        download.validations.append(DigestValidation("sha256", digest, enforced))
        return download

    @pytest.mark.parametrize(
        ("method", "cut"),
        [("length", False), ("chunked", False), ("close", False), ("length", True)],
    )
    def test_as_sent(self, raw_server: Any, tmp_path: Any, method: str, cut: bool) -> None:
        """If the digest is that of the encoded bytes, they are fetched again and written as sent.

        The extra attempt costs no retry, no repair and no back-off. If it breaks off, the retries
        that there are apply to it, and the next attempt writes the bytes as sent, too.
        """
        headers = {"Content-Encoding": "gzip"}
        body = GZIP
        if method == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            body = chunked(body, [7])
        whole = reply(headers=headers, body=body, length=method == "length")
        broken = [[Recv(), Send(whole[:-9])]] if cut else []
        server = raw_server([[Recv(), Send(whole)], *broken, [Recv(), Send(whole)]])
        download = self.download(tmp_path, server, hashlib.sha256(GZIP).hexdigest())
        if cut:
            download.retry = quick(1)
        events = record(download)
        download()
        assert (tmp_path / "blob").read_bytes() == GZIP
        errors = [event for event in events if event.NAME == "ERROR"]
        assert type(errors[0].error) is DigestMismatch
        assert all(event.retrying for event in errors)
        assert len(errors) == 1 + cut
        assert names(events)[:9] == [
            *("PREPARED", "SENT", "REPLIED", "FETCHED", "ERROR", "RESTARTED"),
            *("SENT", "REPLIED", "FETCHED"),
        ]
        assert names(events)[-1] == "SUCCEEDED"
        assert len(server.requests) == 2 + cut

    def test_decoded(self, raw_server: Any, tmp_path: Any) -> None:
        """If the decoded content has the digest, there is no second request."""
        server = raw_server([ENCODED])
        download = self.download(tmp_path, server, hashlib.sha256(TEXT).hexdigest())
        events = record(download)
        download()
        assert (tmp_path / "blob").read_bytes() == TEXT
        assert not {"ERROR", "RESTARTED"} & set(names(events))
        assert len(server.requests) == 1

    def test_neither(self, raw_server: Any, tmp_path: Any) -> None:
        """If neither form has the digest, the download fails after two requests.

        The error is that of the decoded content, and the old file is intact.
        """
        server = raw_server([ENCODED, ENCODED, ENCODED])
        download = self.download(tmp_path, server, "0" * 64)
        events = record(download)
        error = failure(download, DigestMismatch)
        assert (error.expected, error.actual) == ("0" * 64, hashlib.sha256(TEXT).hexdigest())
        assert [e.retrying for e in events if e.NAME == "ERROR"] == [True, False]
        assert names(events)[-1] == "FAILED"
        assert len(server.requests) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["blob"]
        assert (tmp_path / "blob").read_bytes() == b"old"

    def test_each_run(self, raw_server: Any, tmp_path: Any) -> None:
        """A next run of the download decodes first again."""
        server = raw_server([ENCODED] * 3)
        download = self.download(tmp_path, server, hashlib.sha256(GZIP).hexdigest())
        download()
        download.validations = [DigestValidation("sha256", hashlib.sha256(TEXT).hexdigest())]
        download()
        assert (tmp_path / "blob").read_bytes() == TEXT
        assert len(server.requests) == 3

    def test_not_enforced(self, raw_server: Any, tmp_path: Any) -> None:
        """A digest that isn't enforced causes no second request."""
        server = raw_server([ENCODED, ENCODED])
        digest = hashlib.sha256(GZIP).hexdigest()
        self.download(tmp_path, server, digest, enforced=False)()
        assert (tmp_path / "blob").read_bytes() == TEXT
        assert len(server.requests) == 1

    @pytest.mark.parametrize("size", [len(GZIP), len(TEXT), 7])
    def test_size_decides(self, raw_server: Any, tmp_path: Any, size: int) -> None:
        """If Content-Length and a validated size tell the form, there is no second request."""
        server = raw_server([ENCODED, ENCODED])
        body = GZIP if size == len(GZIP) else TEXT
        download = self.download(tmp_path, server, hashlib.sha256(body).hexdigest())
        download.validations.insert(0, SizeValidation(size))
        if size == 7:
            failure(download, SizeMismatch)
        else:
            download()
            assert (tmp_path / "blob").read_bytes() == body
        assert len(server.requests) == 1

    def test_size_of_unknown_length(self, raw_server: Any, tmp_path: Any) -> None:
        """Without Content-Length a size can't decide beforehand, so it may mismatch once, too."""
        whole = reply(headers={"Content-Encoding": "gzip"}, body=GZIP, length=False)
        server = raw_server([[Recv(), Send(whole)]] * 2)
        download = self.download(tmp_path, server, hashlib.sha256(GZIP).hexdigest())
        download.validations.insert(0, SizeValidation(len(GZIP)))
        download()
        assert (tmp_path / "blob").read_bytes() == GZIP
        assert len(server.requests) == 2

    def test_plain_reply_after_an_encoded_one(self, raw_server: Any, tmp_path: Any) -> None:
        """A mismatch of content that wasn't encoded causes no extra attempt."""
        cut = [Recv(), Send(reply(headers={"Content-Encoding": "gzip"}, body=GZIP)[:-9])]
        server = raw_server([cut, [Recv(), Send(reply(body=TEXT))], ENCODED])
        download = self.download(tmp_path, server, "0" * 64)
        download.retry = quick(1)
        failure(download, DigestMismatch)
        assert len(server.requests) == 2


class TestRefused:
    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("xz", b"x"),
            ("compress", b"x"),
            ("gzip, compress", b"x"),
            (", ".join(["gzip"] * 9), b"x"),
        ],
    )
    def test_known(self, file_server: Any, coding: str, body: bytes) -> None:
        """A coding that can't be decoded, and isn't the file's own, fails with its name."""
        error = failure(into_memory(served(file_server, "/a", body, coding).url("/a")))
        assert type(error) is DownloadFailed
        assert coding in error.reason

    def test_unknown(self, file_server: Any) -> None:
        """A Content-Encoding that names no known coding is ignored."""
        assert content(into_memory(served(file_server, "/a", b"x", "utf-8").url("/a"))) == b"x"

    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", GZIP[:-1]),
            ("gzip", GZIP[:-8]),
            ("gzip", GZIP[:100]),
            ("gzip", GZIP[:5]),
            ("gzip", GZIP + GZIP[:20]),
            ("deflate", ZLIB[:-1]),
            ("deflate", RAW[:-1]),
            ("deflate", ZLIB[:1]),
            ("gzip, deflate", zlib.compress(GZIP[:-1])),
        ],
    )
    def test_truncated(self, file_server: Any, coding: str, body: bytes) -> None:
        """Truncated encoded content is an error."""
        error = failure(into_memory(served(file_server, "/a", body, coding).url("/a")))
        assert "too early" in error.reason

    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", TEXT),
            ("gzip", ZLIB),
            ("gzip", GZIP[:-8] + bytes(8)),
            ("gzip", GZIP[:50] + b"\xff" * 50 + GZIP[100:]),
            ("gzip", GZIP + b"trailing"),
            ("gzip", GZIP + b"\0"),
            ("deflate", GZIP),
            ("deflate", ZLIB[:-4] + bytes(4)),
            ("deflate", ZLIB + b"trailing"),
            ("deflate", ZLIB + ZLIB),
            ("deflate", RAW + b"x"),
            ("deflate", b"\xff" * 9),
        ],
    )
    def test_broken(self, file_server: Any, tmp_path: Any, coding: str, body: bytes) -> None:
        """Malformed encoded content, or data after its end, is an error."""
        server = served(file_server, "/a", body, coding)
        error = failure(into_memory(server.url("/a"), quick()))
        assert type(error) is DownloadFailed
        assert coding in error.reason
        assert server.count == 1


class TestAskedFor:
    @pytest.mark.parametrize("name", ["Accept-Encoding", "accept-encoding"])
    @pytest.mark.parametrize(("coding", "body"), [("gzip", GZIP), ("br", b"anything")])
    def test_as_it_comes(self, file_server: Any, name: str, coding: str, body: bytes) -> None:
        """A caller that sets Accept-Encoding gets the encoded bytes unchanged."""
        server = served(file_server, "/a", body, coding)
        assert content(into_memory(server.url("/a"), headers={name: coding})) == body
        found = [v for n, v in server.requests[0].headers if n.lower() == "accept-encoding"]
        assert found == [coding]
