"""Which content codings are undone, and how."""

import gzip
import zlib

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from pulpcore.plugin.download.futures.http.coding import CodingError, Limit, decode, to_undo


def zipped(data: bytes) -> bytes:
    """The data as gzip, the same each time: parameters of tests must not change."""
    return gzip.compress(data, 9, mtime=0)


TEXT = b"content " * 100
MIB = 1024 * 1024
NONE = Limit(None, None)


def answer(coding: str | None, media_type: str | None = None) -> requests.Response:
    """A reply with that Content-Encoding."""
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
        ("gzip", None, ["http://x/a.gz/b"], ["gzip"]),
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
    """What the name or the type says to be published so is left."""
    assert to_undo(answer(coding, media_type), urls) == undone


@pytest.mark.parametrize("coding", ["br", "gzip, br", "br, gzip", "zstd", "gzip," * 5])
def test_refused(coding: str) -> None:
    """What can't be undone is refused."""
    with pytest.raises(CodingError, match="not asked for"):
        to_undo(answer(coding), ["http://x/a"])


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
    """In whatever pieces it comes, the content is that which was encoded."""
    codings, data = encoded
    buffers = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"".join(decode(buffers, codings, NONE)) == TEXT


@given(st.sampled_from(ENCODED[:-1]), st.data())
def test_cut(encoded: tuple[list[str], bytes], data: st.DataObject) -> None:
    """Wherever it is cut, it is an error; but for a cut between members, which nobody can see."""
    codings, body = encoded
    cut = data.draw(st.integers(0, len(body) - 1))
    try:
        found = b"".join(decode([body[:cut]], codings, NONE))
    except CodingError:
        return
    assert found == TEXT[:9]


def test_empty_buffers() -> None:
    """Empty buffers are no end."""
    body = zipped(TEXT)
    assert b"".join(decode([b"", body[:5], b"", body[5:], b""], ["gzip"], NONE)) == TEXT


def test_bounded() -> None:
    """What swells comes in pieces of a bounded size, and only as it is asked for."""
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
        ("gzip", b"", "too early"),
        ("deflate", b"", "too early"),
        ("gzip", zipped(TEXT)[:-1], "too early"),
    ],
)
def test_broken(coding: str, data: bytes, match: str) -> None:
    """What is wrong is told."""
    with pytest.raises(CodingError, match=match):
        b"".join(decode([data] if data else [], [coding], NONE))


@pytest.fixture(scope="module")
def bomb() -> list[bytes]:
    """80 MiB of zeros in 80 KiB of gzip, in pieces."""
    coder = zlib.compressobj(9, wbits=31)
    return [coder.compress(bytes(MIB)) for _ in range(80)] + [coder.flush()]


def came_out(buffers: list[bytes], codings: list[str], limit: Limit) -> int:
    """How much came out before the limit stopped it."""
    sizes: list[int] = []
    with pytest.raises(CodingError, match="compression bomb"):
        sizes.extend(map(len, decode(buffers, codings, limit)))
    return sum(sizes)


@pytest.mark.parametrize("ratio", [1, 200, 500.5])
def test_bomb(bomb: list[bytes], ratio: float) -> None:
    """What swells more than the ratio allows is stopped, once it is no longer harmless."""
    size = came_out(bomb, ["gzip"], Limit(ratio, 1000))
    assert 64 * MIB - 128 * 1024 <= size <= 64 * MIB


@pytest.mark.parametrize(
    "limit", [NONE, Limit(1100, None), Limit(200, 80 * MIB)], ids=["none", "ratio", "expected"]
)
def test_no_bomb(bomb: list[bytes], limit: Limit) -> None:
    """What swells may do so within the ratio, up to the size expected, or without a limit."""
    assert sum(len(piece) for piece in decode(bomb, ["gzip"], limit)) == 80 * MIB


def test_ratio_is_of_all() -> None:
    """What was sent before counts: a part of a file may well be zeros."""
    limit = Limit(200, None)
    assert list(limit.count([b"a" * 600, b"", b"b" * 400])) == [b"a" * 600, b"", b"b" * 400]
    limit.check(200_000, 0)
    with pytest.raises(CodingError, match="200 times"):
        limit.check(200_001, 0)


def test_bomb_between() -> None:
    """What swells between two codings is stopped soon, also if nothing comes out in the end."""
    nothing = zipped(zipped(b"") * 100_000)
    assert came_out([nothing], ["gzip", "gzip"], Limit(20, None)) == 0
    assert b"".join(decode([nothing], ["gzip", "gzip"], NONE)) == b""
