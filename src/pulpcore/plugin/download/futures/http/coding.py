"""Decides what to do with a content coding that was not requested (RFC 9110 section 8.4).

A download must produce the bytes that the server published. The request says ``Accept-Encoding:
identity``, and still two kinds of server answer with ``Content-Encoding: gzip``:

* The server publishes a compressed file and labels it (Apache with ``AddEncoding`` or
  ``mod_mime_magic``). The published file is the compressed one.
* The server compresses all responses. The published file is the decoded one.

The first rule that matches decides:

1. If ``Content-Length`` equals the size that a validation expects, the body is written unchanged.
2. If the file's name or media type says that the file is compressed with that coding, the body is
   written unchanged. The name comes from a URL (the given one, or one after redirects) or from
   ``Content-Disposition``. It is the last segment of the path, or the one before it if the last has
   no extension, as in ``/x.tar.gz/download``.
3. gzip and deflate are decoded. So are br and zstd if their libraries are installed (the extra
   ``codings``; Python 3.14 includes zstd). If the decoded content then fails the validation of a
   digest, and no expected size could decide, the file is requested again and written unchanged.
4. Any other coding is an error. A label that isn't a coding, such as utf-8, is ignored.

Decoding may enlarge the content a thousandfold, and again with each further coding. A limit
prevents a small response from filling the disk or occupying a thread for hours: see
``HttpDownload.expansion_max``. Memory is bounded in any case, because decoders return small pieces.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import requests

from ..validation import DigestValidation, SizeValidation, Validation
from .wire.reply import header, length

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
# Parts of a media subtype that name a coding, as in vnd.oci.image.layer.v1.tar+gzip.
_WORDS = {
    "gzip": frozenset({"gzip", "gzipped", "tgz"}),
    "deflate": frozenset({"zlib"}),
    "compress": frozenset({"compress"}),
    "br": frozenset({"br", "brotli"}),
    "zstd": frozenset({"zstd"}),
    "bzip2": frozenset({"bzip", "bzip2"}),
    "xz": frozenset({"xz"}),
}
_TYPES = {"gzip": frozenset({"x-gtar-compressed", "x-compressed-tar"})}
_TAR = frozenset({"x-tar", "tar"})
_DECODED = frozenset({"gzip", "deflate", "br", "zstd"})
# Other known codings: the registry of RFC 9110 section 16.6.1, and some unregistered ones.
_OTHERS = frozenset({"aes128gcm", "bzip2", "compress", "dcb", "dcz", "exi", "lzma"}) | {
    "pack200-gzip",
    "xz",
}
# Codings that allow several members in a row (RFC 1952 section 2.2, RFC 8878 section 3).
_MEMBERS = frozenset({"gzip", "zstd"})
# The largest window that a decoder must support, so servers may not require more (RFC 9659).
_WINDOW_LOG = 23
# The zstandard library decodes its whole input at once, and 4 bytes may become 128 KiB.
_ZSTD_SLICE = 256
# The parameters filename and filename* (RFC 6266 section 4.1).
_FILENAME = re.compile(
    r"""(?:^|;)\s*filename(\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))""", re.IGNORECASE
)
_DEEPEST = 4
_BLOCK = 128 * 1024
_HARMLESS = 64 * 1024 * 1024
# The intermediate result between two codings is no content. Decoding it may take long without
# producing any.
_HARMLESS_BETWEEN = 1024 * 1024


class CodingError(Exception):
    """The content coding of a response can't be decoded. The message says why."""


class Limit:
    """The limit for the size of decoded content."""

    def __init__(self, ratio: float | None, expected: int | None) -> None:
        """Create the limit for one response.

        Args:
            ratio: The maximum ratio of decoded size to encoded size; None for no limit.
            expected: The expected size (bytes); None if unknown. The ratio isn't checked up to that
                size, nor up to 64 MiB.
        """
        self._ratio = ratio
        self._expected = expected or 0
        self._sent = 0

    def count(self, buffers: Iterable[bytes]) -> Iterator[bytes]:
        """Yield buffers of encoded content unchanged, and count their bytes.

        Args:
            buffers: The buffers.
        """
        for buffer in buffers:
            self._sent += len(buffer)
            yield buffer

    def check(self, size: int, harmless: int) -> None:
        """Check the size of the decoded content.

        Args:
            size: The size so far (bytes).
            harmless: The size up to which the ratio isn't checked (bytes).

        Raises:
            CodingError: The content is too large.
        """
        ratio = self._ratio
        if ratio is not None and size > max(harmless, self._expected, ratio * self._sent):
            raise CodingError(
                f"the content is more than {ratio:g} times as large as what was sent, as that of a "
                "compression bomb is: if it is right, say its size by a SizeValidation, or set "
                "expansion_max"
            )


def to_undo(
    reply: requests.Response, urls: Iterable[str], validations: Iterable[Validation] = ()
) -> list[str]:
    """Return the codings to decode, in the order in which the server applied them.

    Args:
        reply: The response, with its body unread. The request asked for no coding.
        urls: The URLs of the file: the given one, and those after redirects.
        validations: The validations of the content.

    Raises:
        CodingError: A coding can't be decoded.
    """
    labels = [
        label.strip().lower() for label in (header(reply, "content-encoding") or "").split(",")
    ]
    labels = [label for label in labels if label.removeprefix("x-") in _OTHERS | _DECODED]
    codings = [label.removeprefix("x-") for label in labels]
    sizes = _sizes(validations)
    if not codings or (sizes and length(reply) in sizes):
        return []
    # The first coding may belong to the published file, which then stays encoded with it.
    if _is_published(labels[0], reply, urls):
        del codings[0]
    if len(codings) > _DEEPEST or set(codings) - _DECODED:
        raise CodingError(
            f"the content has a coding ({', '.join(codings)}) which was not asked for"
        )
    for coding in codings:
        _library(coding)
    return codings


def may_be_as_sent(reply: requests.Response, validations: Iterable[Validation]) -> bool:
    """Return whether decoded content that failed its validation may be valid without decoding.

    That is possible if a digest is validated, and no expected size has decided already.

    Args:
        reply: The response.
        validations: The validations of the content.
    """
    found = list(validations)
    has_digest = any(isinstance(each, DigestValidation) and each.enforced for each in found)
    return has_digest and (not _sizes(found) or length(reply) is None)


def _sizes(validations: Iterable[Validation]) -> set[int]:
    return {each.expected for each in validations if isinstance(each, SizeValidation)}


def decode(buffers: Iterable[bytes], codings: list[str], limit: Limit) -> Iterator[bytes]:
    """Decode content in pieces of a bounded size.

    Args:
        buffers: The encoded content.
        codings: The codings, in the order in which the server applied them.
        limit: The limit for the result of each coding.

    Raises:
        CodingError: The content is malformed, incomplete or too large.
    """
    buffers = limit.count(buffers)
    for left, coding in reversed(list(enumerate(codings))):
        buffers = _undo(buffers, coding, limit, _HARMLESS_BETWEEN if left else _HARMLESS)
    yield from buffers


def _is_published(label: str, reply: requests.Response, urls: Iterable[str]) -> bool:
    """Return whether the name or media type says that the published file has a coding."""
    coding = label.removeprefix("x-")
    media_type = (header(reply, "content-type") or "").partition(";")[0]
    subtype = media_type.strip().lower().rpartition("/")[2]
    words = set(re.split(r"[.+\-]", subtype))
    if subtype in _TYPES.get(coding, ()) or words & _WORDS.get(coding, frozenset()):
        return True
    # Apache labels a tar file that it found to be compressed "x-gzip". Servers that compress
    # their responses say "gzip".
    if label == "x-gzip" and subtype in _TAR:
        return True
    return any(name.endswith(_NAMES.get(coding, ())) for name in _names(reply, urls))


def _names(reply: requests.Response, urls: Iterable[str]) -> Iterator[str]:
    """Yield the possible names of the file, in lower case."""
    disposition = header(reply, "content-disposition") or ""
    for encoded, quoted, token in _FILENAME.findall(disposition):
        name = quoted or token
        # Only the extension matters, which is ASCII in any charset.
        yield (unquote(name.rpartition("'")[2]) if encoded else name).lower()
    for url in urls:
        folder, _, name = unquote(urlsplit(url).path).lower().rpartition("/")
        yield name if "." in name else folder


class _Decoder(Protocol):
    """Decodes one member of an encoded content.

    Attributes:
        error (type[Exception]): The exception that malformed content causes.
    """

    error: type[Exception]

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""

    @property
    def unused_data(self) -> bytes:
        """The input after the end of the member."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode data, and yield pieces of a bounded size."""


def _undo(buffers: Iterable[bytes], coding: str, limit: Limit, harmless: int) -> Iterator[bytes]:
    decoder: _Decoder | None = None
    members = size = 0
    for buffer in buffers:
        data = buffer
        while data:
            if decoder is None:
                if members and coding not in _MEMBERS:
                    raise CodingError(f"there is something behind the end of the {coding} content")
                decoder = _new_decoder(coding, data)
            try:
                for piece in filter(None, decoder.feed(data)):
                    size += len(piece)
                    limit.check(size, harmless)
                    yield piece
                data, is_end = decoder.unused_data, decoder.eof
            except decoder.error as error:
                raise CodingError(f"the content isn't well-formed {coding}: {error}") from error
            if is_end:
                decoder = None
                members += 1
    # An empty body is valid with any coding.
    if decoder is not None:
        raise CodingError(f"the {coding} content ends too early")


def _new_decoder(coding: str, data: bytes) -> _Decoder:
    if coding == "gzip":
        return _Zlib(31)
    if coding == "deflate":
        # Most servers send the zlib format (RFC 1950), some send raw deflate data.
        is_zlib = data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] * 256 + data[1]) % 31 == 0)
        return _Zlib(15 if is_zlib else -15)
    library = _library(coding)
    makers: dict[str, Callable[[Any], _Decoder]] = {
        "brotli": _Brotli,
        "compression.zstd": _Zstd,
        "zstandard": _Zstandard,
    }
    return makers[library.__name__](library)


def _library(coding: str) -> ModuleType:
    """Return the library for a coding.

    Raises:
        CodingError: The library isn't installed, or too old.
    """
    names = {"br": ["brotli"], "zstd": ["compression.zstd", "zstandard"]}.get(coding, ["zlib"])
    for name in names:
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        # Versions before 1.2 can't limit the size of the output.
        if name != "brotli" or hasattr(library.Decompressor, "can_accept_more_data"):
            return library
    raise CodingError(
        f"the content has a coding ({coding}) which was not asked for; to have it decoded, run "
        "pip install --upgrade brotli zstandard"
    )


class _Zlib:
    error: type[Exception] = zlib.error

    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self.eof:
            piece = self._zlib.decompress(data, _BLOCK)
            yield piece
            data = self._zlib.unconsumed_tail
            # After a full piece the decoder may hold more output.
            if not data and len(piece) < _BLOCK:
                break


class _Brotli:
    # The decoder raises an error for data after the end.
    unused_data = b""

    def __init__(self, library: Any) -> None:
        self.error = library.error
        self._decoder = library.Decompressor()

    @property
    def eof(self) -> bool:
        found: bool = self._decoder.is_finished()
        return found

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self.eof:
            # The output may be somewhat larger than this limit.
            piece = self._decoder.process(data, output_buffer_limit=_BLOCK // 2)
            yield piece
            data = b""
            # The decoder may accept more input while it still holds output.
            if not piece and self._decoder.can_accept_more_data():
                break


class _Zstd:
    """Decodes zstd with the standard library (Python 3.14 and later)."""

    def __init__(self, library: Any) -> None:
        self.error = library.ZstdError
        window = {library.DecompressionParameter.window_log_max: _WINDOW_LOG}
        self._decoder = library.ZstdDecompressor(options=window)

    @property
    def eof(self) -> bool:
        found: bool = self._decoder.eof
        return found

    @property
    def unused_data(self) -> bytes:
        found: bytes = self._decoder.unused_data
        return found

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            yield self._decoder.decompress(data, _BLOCK)
            data = b""
            if self.eof or self._decoder.needs_input:
                break


class _Zstandard:
    """Decodes zstd with the package ``zstandard``."""

    def __init__(self, library: Any) -> None:
        self.error = library.ZstdError
        self._decoder = library.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).decompressobj()
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        found: bool = self._decoder.eof
        return found

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            found = self._decoder.decompress(data[start : start + _ZSTD_SLICE])
            yield from (found[at : at + _BLOCK] for at in range(0, len(found), _BLOCK))
            if self.eof:
                self.unused_data = self._decoder.unused_data + data[start + _ZSTD_SLICE :]
                break
