"""Tests of decoding the Content-Encoding of responses."""

import bz2
import gzip
import sys
import zlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from pulpcore.plugin.download.futures import DigestValidation, SizeValidation, Validation
from pulpcore.plugin.download.futures.http.coding import (
    CodingError,
    Limit,
    decode,
    may_be_as_sent,
    to_undo,
)


def zipped(data: bytes) -> bytes:
    """Compress data with gzip.

    The result is always the same, so that parameters of tests don't change.
    """
    return gzip.compress(data, 9, mtime=0)


TEXT = b"content " * 100
MIB = 1024 * 1024
NONE = Limit(None, None)
DIGEST = DigestValidation("md5", "0" * 32)


def answer(coding: str | None, media_type: str | None = None) -> requests.Response:
    """Make a response with the given Content-Encoding."""
    response = requests.Response()
    if coding is not None:
        response.headers["Content-Encoding"] = coding
    if media_type is not None:
        response.headers["Content-Type"] = media_type
    return response


@pytest.mark.parametrize(
    ("coding", "media_type", "urls", "undone"),
    [
        (None, None, ["http://x/a"], []),
        ("", None, ["http://x/a"], []),
        ("identity", None, ["http://x/a"], []),
        ("gzip", None, ["http://x/a"], ["gzip"]),
        ("X-GZIP", None, ["http://x/a"], ["gzip"]),
        ("deflate", "text/plain", ["http://x/a.txt"], ["deflate"]),
        ("gzip, deflate", None, ["http://x/a"], ["gzip", "deflate"]),
        ("gzip", None, ["http://x/a.gz"], []),
        ("gzip", None, ["http://x/A.GZ?x=.txt"], []),
        ("gzip", None, ["http://x/a%2Egz"], []),
        ("gzip", None, ["http://x/a?x=.gz"], ["gzip"]),
        ("gzip", None, ["http://x.gz/a"], ["gzip"]),
        ("gzip", None, ["http://x/a.gz/b"], []),
        ("gzip", None, ["http://x/a.gz/"], []),
        ("gzip", None, ["http://x/a.gz/b.txt"], ["gzip"]),
        ("gzip", None, ["http://x/a.gz/b/c"], ["gzip"]),
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip", ["http://x/a"], []),
        ("gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip", ["http://x/a"], []),
        ("gzip", "application/x-gzip-compressed", ["http://x/a"], []),
        ("gzip", "application/gzipped", ["http://x/a"], []),
        ("gzip", "application/x-compressed-tar", ["http://x/a"], []),
        ("gzip", "text/x-gzipping", ["http://x/a"], ["gzip"]),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd", ["http://x/a"], []),
        ("x-gzip", "application/x-tar", ["http://x/a"], []),
        ("x-gzip", "text/plain", ["http://x/a"], ["gzip"]),
        ("gzip", None, ["http://x/a", "http://y/a.tgz"], []),
        ("gzip", "application/gzip", ["http://x/a"], []),
        ("gzip", "application/x-tar", ["http://x/a"], ["gzip"]),
        ("gzip, gzip", None, ["http://x/a.gz"], ["gzip"]),
        ("br", None, ["http://x/a.br"], []),
        ("br, gzip", None, ["http://x/a.br"], ["gzip"]),
        ("zstd", "application/zstd", ["http://x/a"], []),
        ("compress", None, ["http://x/a.Z"], []),
    ],
)
def test_to_undo(
    coding: str | None, media_type: str | None, urls: list[str], undone: list[str]
) -> None:
    """A coding that the file name or media type shows to be part of the file isn't decoded."""
    assert to_undo(answer(coding, media_type), urls) == undone


@pytest.mark.parametrize(
    ("disposition", "undone"),
    [
        ('attachment; filename="x.tar.gz"', []),
        ("attachment; filename=X.TGZ; size=1", []),
        ("inline; filename*=UTF-8''na%C3%AFve%2Egz", []),
        ("inline; filename*1*=idna''x", ["gzip"]),
        ("inline; filename=x.txt; filename*=idna'en'x%FF.gz", []),
        ('inline; x="; filename=a.txt" ; FileName = "a\\"b.GZ"', []),
        ('attachment; filename="x.gz.txt"', ["gzip"]),
        ('attachment; name="x.gz"', ["gzip"]),
        ("nonsense", ["gzip"]),
    ],
)
def test_disposition(disposition: str, undone: list[str]) -> None:
    """The file name in Content-Disposition decides like that in the URL whether gzip is decoded."""
    reply = answer("gzip")
    reply.headers["Content-Disposition"] = disposition
    assert to_undo(reply, ["http://x/get?id=1"]) == undone


@pytest.mark.parametrize(
    ("length", "validations", "undone", "may_be"),
    [
        (100, [SizeValidation(100)], [], False),
        (100, [SizeValidation(100, enforced=False)], [], False),
        (100, [SizeValidation(99)], ["gzip"], False),
        (None, [SizeValidation(100)], ["gzip"], False),
        (100, [DIGEST], ["gzip"], True),
        (None, [DIGEST], ["gzip"], True),
        (100, [DIGEST, SizeValidation(100)], [], False),
        (100, [DIGEST, SizeValidation(99)], ["gzip"], False),
        (None, [DIGEST, SizeValidation(99)], ["gzip"], True),
        (100, [DigestValidation("md5", "0" * 32, enforced=False)], ["gzip"], False),
        (100, [], ["gzip"], False),
    ],
)
def test_size(
    length: int | None, validations: list[Validation], undone: list[str], may_be: bool
) -> None:
    """If the Content-Length equals the validated size, the content isn't decoded.

    If only a digest is known, the digest decides later which form was meant.
    """
    reply = answer("gzip")
    reply.raw = SimpleNamespace(length_remaining=length)
    assert to_undo(reply, ["http://x/blobs/sha256:0123"], validations) == undone
    assert may_be_as_sent(reply, validations) is may_be


@pytest.mark.parametrize("coding", ["gzip, compress", "xz", "gzip, xz", "gzip," * 5])
def test_refused(coding: str) -> None:
    """A Content-Encoding that can't be decoded raises an error."""
    with pytest.raises(CodingError, match=r"not asked for$"):
        to_undo(answer(coding), ["http://x/a"])


@pytest.mark.parametrize("coding", ["br", "gzip, br", "br, gzip", "zstd"])
def test_not_installed(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the library for a content coding isn't installed, the error says how to install it."""
    for name in ("brotli", "zstandard", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CodingError, match=r"\((br|zstd)\).*pip install --upgrade brotli zstandard"):
        to_undo(answer(coding), ["http://x/a"])


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of brotli that can't limit the size of its output is treated as not installed."""
    monkeypatch.setitem(sys.modules, "brotli", ModuleType("brotli"))
    sys.modules["brotli"].Decompressor = object  # type: ignore[attr-defined]
    with pytest.raises(CodingError, match="pip install --upgrade brotli"):
        to_undo(answer("br"), ["http://x/a"])


class Brotli:
    """Has the interface of `brotli.Decompressor`, implemented with zlib."""

    def __init__(self) -> None:
        self.zlib = zlib.decompressobj()
        self.is_full = False

    def process(self, data: bytes, output_buffer_limit: int) -> bytes:
        """Decompress the data."""
        piece = self.zlib.decompress(self.zlib.unconsumed_tail + data, output_buffer_limit)
        self.is_full = len(piece) == output_buffer_limit
        if self.zlib.unused_data:
            raise zlib.error("excessive input")
        return piece

    def can_accept_more_data(self) -> bool:
        """Return whether all output was taken."""
        return not self.is_full

    def is_finished(self) -> bool:
        """Return whether the stream has ended."""
        return self.zlib.eof


class Zstandard:
    """Has the interface of `zstandard.ZstdDecompressor`, implemented with zlib."""

    def __init__(self, max_window_size: int) -> None:
        assert max_window_size == 8 * MIB

    def decompressobj(self) -> Any:
        """Return a decompressor."""
        return zlib.decompressobj()


class Options:
    """Has the name of a parameter of `compression.zstd`."""

    window_log_max = "window"


def zstd(options: dict[str, int]) -> bz2.BZ2Decompressor:
    """Stand in for `compression.zstd.ZstdDecompressor`."""
    assert options == {"window": 23}
    return bz2.BZ2Decompressor()


def module(name: str, **members: Any) -> ModuleType:
    """Make a module with these attributes."""
    made = ModuleType(name)
    vars(made).update(members)
    return made


FAKES: dict[str, tuple[str, ModuleType, Callable[[bytes], bytes]]] = {
    "brotli": ("br", module("brotli", Decompressor=Brotli, error=zlib.error), zlib.compress),
    "zstandard": (
        "zstd",
        module("zstandard", ZstdDecompressor=Zstandard, ZstdError=zlib.error),
        zlib.compress,
    ),
    "compression.zstd": (
        "zstd",
        module(
            "compression.zstd",
            ZstdDecompressor=zstd,
            ZstdError=OSError,
            DecompressionParameter=Options,
        ),
        bz2.compress,
    ),
}


@pytest.fixture(params=["brotli", "zstandard", "compression.zstd", "real br", "real zstd"])
def library(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Callable[[bytes], bytes]]:
    """Provide a coding that needs a library, installed or replaced by a fake, and its encoder."""
    if request.param == "real br":
        return "br", pytest.importorskip("brotli").compress
    if request.param == "real zstd":
        real = pytest.importorskip("zstandard")
        return "zstd", lambda data: real.ZstdCompressor().compress(data)
    for name in FAKES:
        monkeypatch.setitem(sys.modules, name, None)
    coding, made, encode = FAKES[request.param]
    monkeypatch.setitem(sys.modules, request.param, made)
    return coding, encode


def test_library(library: tuple[str, Callable[[bytes], bytes]]) -> None:
    """Brotli and zstd content is decoded in whatever pieces it arrives, alone or within gzip."""
    coding, encode = library
    assert to_undo(answer(coding), ["http://x/a"]) == [coding]
    data = encode(TEXT)
    for size in (1, 7, len(data)):
        buffers = [data[start : start + size] for start in range(0, len(data), size)]
        assert b"".join(decode(buffers, [coding], NONE)) == TEXT
    assert b"".join(decode([zipped(data)], [coding, "gzip"], NONE)) == TEXT
    assert list(decode([], [coding], NONE)) == []


def test_library_bounded(library: tuple[str, Callable[[bytes], bytes]]) -> None:
    """Decoding brotli or zstd gives pieces of bounded size and stops at the size limit."""
    coding, encode = library
    data = encode(bytes(80 * MIB))
    pieces = decode([data], [coding], NONE)
    assert 0 < len(next(pieces)) <= 128 * 1024
    assert max(len(piece) for piece in pieces) <= 128 * 1024
    assert came_out([data], [coding], Limit(20, None)) <= 64 * MIB


def test_library_members(library: tuple[str, Callable[[bytes], bytes]]) -> None:
    """Several zstd frames in a row are decoded.

    Data after the end of a brotli stream is an error.
    """
    coding, encode = library
    data = [encode(TEXT[:9]), encode(TEXT[9:])]
    for buffers in (data, [b"".join(data)]):
        if coding == "zstd":
            assert b"".join(decode(buffers, [coding], NONE)) == TEXT
        else:
            with pytest.raises(CodingError, match=r"behind the end|well-formed"):
                b"".join(decode(buffers, [coding], NONE))


def test_library_broken(library: tuple[str, Callable[[bytes], bytes]]) -> None:
    """Truncated or malformed brotli and zstd content raises an error."""
    coding, encode = library
    with pytest.raises(CodingError, match="too early"):
        b"".join(decode([encode(TEXT)[:-1]], [coding], NONE))
    with pytest.raises(CodingError, match=f"isn't well-formed {coding}"):
        b"".join(decode([b"\xff" * 100], [coding], NONE))


ENCODED = [
    (["gzip"], zipped(TEXT)),
    (["gzip"], zipped(TEXT[:9]) + zipped(TEXT[9:])),
    (["deflate"], zlib.compress(TEXT)),
    (["deflate"], zlib.compress(TEXT)[2:-4]),
    (["gzip", "deflate"], zlib.compress(zipped(TEXT))),
    ([], TEXT),
]


@given(st.sampled_from(ENCODED), st.integers(1, 50))
def test_decode(encoded: tuple[list[str], bytes], size: int) -> None:
    """Decoding gives the original content whatever the pieces in which the encoded data arrives."""
    codings, data = encoded
    buffers = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"".join(decode(buffers, codings, NONE)) == TEXT


@given(st.sampled_from(ENCODED[:-1]), st.data())
def test_cut(encoded: tuple[list[str], bytes], data: st.DataObject) -> None:
    """Truncated content raises an error wherever it is cut, except between two gzip members."""
    codings, body = encoded
    cut = data.draw(st.integers(0, len(body) - 1))
    try:
        found = b"".join(decode([body[:cut]], codings, NONE))
    except CodingError:
        return
    assert found == (TEXT[:9] if cut else b"")


@pytest.mark.parametrize("codings", [["gzip"], ["deflate"], ["gzip", "deflate"]])
@pytest.mark.parametrize("buffers", [[], [b""], [b"", b""]])
def test_nothing(codings: list[str], buffers: list[bytes]) -> None:
    """An empty body decodes to nothing with any Content-Encoding."""
    assert list(decode(buffers, codings, NONE)) == []


@pytest.mark.parametrize("data", [b"x", zlib.compress(TEXT)])
def test_behind_deflate(data: bytes) -> None:
    """Data after the end of a deflate stream is an error, also if it arrives in its own buffer."""
    with pytest.raises(CodingError, match="behind the end"):
        b"".join(decode([zlib.compress(TEXT), data], ["deflate"], NONE))


def test_empty_buffers() -> None:
    """Empty buffers in the middle of the data don't end the decoding."""
    body = zipped(TEXT)
    assert b"".join(decode([b"", body[:5], b"", body[5:], b""], ["gzip"], NONE)) == TEXT


def test_bounded() -> None:
    """Decoding gives pieces of bounded size and decodes only as much as the caller asks for."""
    pieces = decode([zipped(bytes(10_000_000))], ["gzip"], NONE)
    assert len(next(pieces)) <= 128 * 1024
    assert max(len(piece) for piece in pieces) <= 128 * 1024


@pytest.mark.parametrize(
    ("coding", "data", "match"),
    [
        ("gzip", TEXT, "well-formed"),
        ("gzip", zipped(TEXT) + b"x" * 20, "well-formed"),
        ("deflate", b"\xff" * 20, "well-formed"),
        ("deflate", zlib.compress(TEXT) + b"x", "behind the end"),
        ("gzip", zipped(TEXT)[:-1], "too early"),
    ],
)
def test_broken(coding: str, data: bytes, match: str) -> None:
    """Malformed content raises an error that describes the problem."""
    with pytest.raises(CodingError, match=match):
        b"".join(decode([data] if data else [], [coding], NONE))


@pytest.fixture(scope="module")
def bomb() -> list[bytes]:
    """Return 80 MiB of zeros as 80 KiB of gzip, in pieces."""
    coder = zlib.compressobj(9, wbits=31)
    return [coder.compress(bytes(MIB)) for _ in range(80)] + [coder.flush()]


def came_out(buffers: list[bytes], codings: list[str], limit: Limit) -> int:
    """Return how much was decoded before the limit stopped it."""
    sizes: list[int] = []
    with pytest.raises(CodingError, match="compression bomb"):
        sizes.extend(map(len, decode(buffers, codings, limit)))
    return sum(sizes)


@pytest.mark.parametrize("ratio", [1, 200, 500.5])
def test_bomb(bomb: list[bytes], ratio: float) -> None:
    """A decompression bomb is stopped once it exceeds the ratio limit and a harmless size."""
    size = came_out(bomb, ["gzip"], Limit(ratio, 1000))
    assert 64 * MIB - 128 * 1024 <= size <= 64 * MIB


@pytest.mark.parametrize(
    "limit", [NONE, Limit(1100, None), Limit(200, 80 * MIB)], ids=["none", "ratio", "expected"]
)
def test_no_bomb(bomb: list[bytes], limit: Limit) -> None:
    """Content is decoded within the ratio limit, up to the expected size, or without any limit."""
    assert sum(len(piece) for piece in decode(bomb, ["gzip"], limit)) == 80 * MIB


def test_ratio_is_of_all() -> None:
    """The ratio limit counts all encoded bytes so far, so a part of a file may consist of zeros."""
    limit = Limit(200, None)
    assert list(limit.count([b"a" * 600, b"", b"b" * 400])) == [b"a" * 600, b"", b"b" * 400]
    limit.check(200_000, 0)
    with pytest.raises(CodingError, match="200 times"):
        limit.check(200_001, 0)


def test_bomb_between() -> None:
    """With two codings a bomb in the outer one is stopped early, though the inner has no output."""
    nothing = zipped(zipped(b"") * 100_000)
    assert came_out([nothing], ["gzip", "gzip"], Limit(20, None)) == 0
    assert b"".join(decode([nothing], ["gzip", "gzip"], NONE)) == b""
