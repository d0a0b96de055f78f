"""What to do with a content coding that nobody asked for (RFC 9110 section 8.4).

The bytes that are written are to be those that the server published. Two kinds of server send
``Content-Encoding: gzip`` although ``identity`` was asked for:

* One that publishes a compressed file and labels it so (Apache with ``AddEncoding``). The file is
  the compressed one.
* One that compresses whatever it sends. The file is what comes out of the decoder.

The rule: a file whose name or media type says that it is compressed by that coding is written as
it comes. Otherwise gzip and deflate are decoded. Another coding that there is, such as br, is
refused, since what was published can't be told. A label that is none, such as utf-8, which some
servers send, means nothing.

What is decoded may be a thousand times as large as what was sent, and for each coding again. So
that a small reply can't fill a disk, or keep a thread busy for hours, it is limited: see
``HttpDownload.expansion_max``. Memory is bounded in any case, since it comes piece by piece.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

import requests

from .wire.reply import header

_NAMES = {
    "gzip": (
        ".gz",
        ".tgz",
        ".taz",
        ".svgz",
        ".gzip",
        ".z",
        ".crate",
        ".apk",
        ".ipk",
        ".rds",
        ".emz",
        ".wmz",
    ),
    "deflate": (".zz", ".zlib"),
    "compress": (".z", ".taz"),
    "br": (".br",),
    "zstd": (".zst", ".zstd", ".tzst"),
    "bzip2": (".bz2", ".tbz", ".tbz2"),
    "xz": (".xz", ".txz"),
}
_TYPES = {
    "gzip": ("gzip", "x-gzip", "x-tgz", "x-gtar-compressed", "x-compressed-tar"),
    "compress": ("x-compress",),
    "zstd": ("zstd",),
    "bzip2": ("x-bzip", "x-bzip2"),
    "xz": ("x-xz",),
}
# Codings that there are, but for gzip and deflate (the registry of RFC 9110 section 16.6.1, and old
# habits).
_OTHERS = frozenset({"aes128gcm", "br", "bzip2", "compress", "dcb", "dcz", "exi", "lzma"}) | {
    "pack200-gzip",
    "xz",
    "zstd",
}
_DEEPEST = 4
_BLOCK = 128 * 1024
_HARMLESS = 64 * 1024 * 1024
# What comes between two codings is no content: it may take long to decode, with nothing as its
# outcome.
_HARMLESS_BETWEEN = 1024 * 1024


class CodingError(Exception):
    """The content coding of a reply can't be undone. The text says why."""


class Limit:
    """How much may be decoded of what was sent."""

    def __init__(self, ratio: float | None, expected: int | None) -> None:
        """Make a limit.

        Args:
            ratio: How many times as large as what was sent it may be; None for no limit.
            expected: The size that is expected (bytes); None where it isn't known. Up to it, and
                up to 64 MiB, the ratio doesn't matter.
        """
        self._ratio = ratio
        self._expected = expected or 0
        self._sent = 0

    def count(self, buffers: Iterable[bytes]) -> Iterator[bytes]:
        """Hand on what was sent, and count it."""
        for buffer in buffers:
            self._sent += len(buffer)
            yield buffer

    def check(self, size: int, harmless: int) -> None:
        """See that what was decoded isn't too large.

        Args:
            size: How much it is so far (bytes).
            harmless: Up to which size it is well in any case (bytes).

        Raises:
            CodingError: It is too large.
        """
        ratio = self._ratio
        if ratio is not None and size > max(harmless, self._expected, ratio * self._sent):
            raise CodingError(
                f"the content is more than {ratio:g} times as large as what was sent, as that of a "
                "compression bomb is: if it is right, say its size by a SizeValidation, or set "
                "expansion_max"
            )


def to_undo(reply: requests.Response, urls: Iterable[str]) -> list[str]:
    """Return the codings to undo, in the order in which they were applied.

    Args:
        reply: The reply; the caller has not asked for a coding.
        urls: The URLs by which the file is known: as given, and where redirects led.

    Raises:
        CodingError: There is one that can't be undone.
    """
    value = header(reply, "Content-Encoding") or ""
    codings = [coding.strip().lower().removeprefix("x-") for coding in value.split(",")]
    codings = [coding for coding in codings if coding in _OTHERS | {"gzip", "deflate"}]
    if not codings:
        return []
    # A name may say what was applied first: what is published then is the file with that coding.
    if _is_published(codings[0], (header(reply, "Content-Type") or ""), urls):
        del codings[0]
    if len(codings) > _DEEPEST or set(codings) - {"gzip", "deflate"}:
        raise CodingError(
            f"the content has a coding ({', '.join(codings)}) which was not asked for"
        )
    return codings


def decode(buffers: Iterable[bytes], codings: list[str], limit: Limit) -> Iterator[bytes]:
    """Undo codings, a bounded piece at a time.

    Args:
        buffers: The encoded content.
        codings: The codings, in the order in which they were applied.
        limit: How much may come out of each of them.

    Raises:
        CodingError: The content isn't well-formed, ends too early, or is too large.
    """
    buffers = limit.count(buffers)
    for left, coding in reversed(list(enumerate(codings))):
        buffers = _inflate(buffers, coding, limit, _HARMLESS_BETWEEN if left else _HARMLESS)
    yield from buffers


def _is_published(coding: str, media_type: str, urls: Iterable[str]) -> bool:
    endings = _NAMES.get(coding, ())
    if any(unquote(urlsplit(url).path).lower().endswith(endings) for url in urls if endings):
        return True
    subtype = media_type.partition(";")[0].strip().lower().rpartition("/")[2]
    return subtype in _TYPES.get(coding, ())


def _inflate(buffers: Iterable[bytes], coding: str, limit: Limit, harmless: int) -> Iterator[bytes]:
    decoder: zlib._Decompress | None = None
    members = size = 0
    for buffer in buffers:
        data = buffer
        while data:
            if decoder is None:
                decoder = _new_decoder(coding, data)
            for piece in _pieces(decoder, data, coding):
                size += len(piece)
                limit.check(size, harmless)
                yield piece
            data = decoder.unused_data
            if decoder.eof:
                # Another member may follow (RFC 1952 section 2.2); nothing may behind deflate.
                decoder = None
                members += 1
                if data and coding != "gzip":
                    raise CodingError(f"there is something behind the end of the {coding} content")
    if decoder is not None or not members:
        raise CodingError(f"the {coding} content ends too early")


def _pieces(decoder: zlib._Decompress, data: bytes, coding: str) -> Iterator[bytes]:
    """Decode data in bounded pieces. What is behind the end of the coding is left."""
    while not decoder.eof:
        try:
            piece = decoder.decompress(data, _BLOCK)
        except zlib.error as error:
            raise CodingError(f"the content isn't well-formed {coding}: {error}") from error
        if piece:
            yield piece
        data = decoder.unconsumed_tail
        # A full piece may not be all of what was taken in.
        if not data and len(piece) < _BLOCK:
            break


def _new_decoder(coding: str, data: bytes) -> zlib._Decompress:
    if coding == "gzip":
        return zlib.decompressobj(31)
    # Zlib's format (RFC 1950), and raw from some servers.
    is_zlib = data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] * 256 + data[1]) % 31 == 0)
    return zlib.decompressobj(15 if is_zlib else -15)
