"""What to do with a content coding that nobody asked for (RFC 9110 section 8.4).

The bytes that are written are to be those that the server published. Two kinds of server send
``Content-Encoding: gzip`` although ``identity`` was asked for:

* One that publishes a compressed file and labels it so (Apache with ``AddEncoding`` or
  ``mod_mime_magic``). The file is the compressed one.
* One that compresses whatever it sends. The file is what comes out of the decoder.

The rules, of which the first that fits counts:

1. ``Content-Length`` is the size that a validation expects: the file is written as it was sent.
2. The file's name or its media type says that it is compressed by that coding: it is written as it
   was sent. The name is that of a URL (as given, or where redirects led), or the one that
   ``Content-Disposition`` gives. The last part of a path counts, and where that has no ending the
   part before it, as in ``/x.tar.gz/download``.
3. gzip and deflate are decoded, and so are br and zstd where the libraries for them are installed
   (the extra ``codings``; Python 3.14 has zstd). Where a digest is validated that doesn't fit, and
   no size could tell, the file is fetched once more and written as it was sent.
4. Any other coding is refused. A label that is none, such as utf-8, which some servers send, means
   nothing.

What is decoded may be a thousand times as large as what was sent, and for each coding again. So
that a small reply can't fill a disk, or keep a thread busy for hours, it is limited: see
``HttpDownload.expansion_max``. Memory is bounded in any case, since it comes piece by piece.
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
# Words of a media type's second part, such as vnd.oci.image.layer.v1.tar+gzip.
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
# Others that there are (the registry of RFC 9110 section 16.6.1, and old habits).
_OTHERS = frozenset({"aes128gcm", "bzip2", "compress", "dcb", "dcz", "exi", "lzma"}) | {
    "pack200-gzip",
    "xz",
}
# Of which several may follow each other (RFC 1952 section 2.2, RFC 8878 section 3).
_MEMBERS = frozenset({"gzip", "zstd"})
# A server may ask for no more memory (RFC 9659).
_WINDOW_LOG = 23
# One block of four bytes may become 128 KiB, and this library decodes all that it is given.
_ZSTD_SLICE = 256
# The parameters filename and filename* (RFC 6266 section 4.1).
_FILENAME = re.compile(
    r"""(?:^|;)\s*filename(\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))""", re.IGNORECASE
)
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


def to_undo(
    reply: requests.Response, urls: Iterable[str], validations: Iterable[Validation] = ()
) -> list[str]:
    """Return the codings to undo, in the order in which they were applied.

    Args:
        reply: The reply, its body unread; the caller has not asked for a coding.
        urls: The URLs by which the file is known: as given, and where redirects led.
        validations: What the content must pass.

    Raises:
        CodingError: There is one that can't be undone.
    """
    labels = [
        label.strip().lower() for label in (header(reply, "content-encoding") or "").split(",")
    ]
    labels = [label for label in labels if label.removeprefix("x-") in _OTHERS | _DECODED]
    codings = [label.removeprefix("x-") for label in labels]
    sizes = _sizes(validations)
    if not codings or (sizes and length(reply) in sizes):
        return []
    # A name may say what was applied first: what is published then is the file with that coding.
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
    """Whether content whose coding was undone, and which then failed, may be right as it was sent.

    That is so where a digest is validated, and no size has told already.

    Args:
        reply: The reply.
        validations: What the content must pass.
    """
    found = list(validations)
    has_digest = any(isinstance(each, DigestValidation) and each.enforced for each in found)
    return has_digest and (not _sizes(found) or length(reply) is None)


def _sizes(validations: Iterable[Validation]) -> set[int]:
    return {each.expected for each in validations if isinstance(each, SizeValidation)}


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
        buffers = _undo(buffers, coding, limit, _HARMLESS_BETWEEN if left else _HARMLESS)
    yield from buffers


def _is_published(label: str, reply: requests.Response, urls: Iterable[str]) -> bool:
    """Whether a name or the media type says that the file itself has a coding."""
    coding = label.removeprefix("x-")
    media_type = (header(reply, "content-type") or "").partition(";")[0]
    subtype = media_type.strip().lower().rpartition("/")[2]
    words = set(re.split(r"[.+\-]", subtype))
    if subtype in _TYPES.get(coding, ()) or words & _WORDS.get(coding, frozenset()):
        return True
    # So Apache labels a tar that it has found to be compressed; who compresses says "gzip".
    if label == "x-gzip" and subtype in _TAR:
        return True
    return any(name.endswith(_NAMES.get(coding, ())) for name in _names(reply, urls))


def _names(reply: requests.Response, urls: Iterable[str]) -> Iterator[str]:
    """The names of the file, in lower case."""
    disposition = header(reply, "content-disposition") or ""
    for encoded, quoted, token in _FILENAME.findall(disposition):
        name = quoted or token
        # Only its ending counts, and that is ASCII in any charset.
        yield (unquote(name.rpartition("'")[2]) if encoded else name).lower()
    for url in urls:
        folder, _, name = unquote(urlsplit(url).path).lower().rpartition("/")
        yield name if "." in name else folder


class _Decoder(Protocol):
    """Decodes one member of a coding.

    Attributes:
        error (type[Exception]): What is raised where the content isn't well-formed.
    """

    error: type[Exception]

    @property
    def eof(self) -> bool:
        """The member has come to its end."""

    @property
    def unused_data(self) -> bytes:
        """What stands behind the end."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode data in pieces of a bounded size."""


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
    # Nothing is nothing, however it is labelled.
    if decoder is not None:
        raise CodingError(f"the {coding} content ends too early")


def _new_decoder(coding: str, data: bytes) -> _Decoder:
    if coding == "gzip":
        return _Zlib(31)
    if coding == "deflate":
        # Zlib's format (RFC 1950), and raw from some servers.
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
    """Return the library that decodes a coding.

    Raises:
        CodingError: It isn't installed, or too old.
    """
    names = {"br": ["brotli"], "zstd": ["compression.zstd", "zstandard"]}.get(coding, ["zlib"])
    for name in names:
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        # Before 1.2 nothing limits what comes out of it.
        if name != "brotli" or hasattr(library.Decompressor, "can_accept_more_data"):
            return library
    raise CodingError(
        f"the content has a coding ({coding}) which was not asked for; to have it decoded, install "
        "the extra codings: pip install 'pulpcore-futures[codings]'"
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
            # A full piece may not be all of what was taken in.
            if not data and len(piece) < _BLOCK:
                break


class _Brotli:
    # What stands behind the end isn't well-formed.
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
            # It may give somewhat more.
            piece = self._decoder.process(data, output_buffer_limit=_BLOCK // 2)
            yield piece
            data = b""
            # It can accept more data also while there is some to come out.
            if not piece and self._decoder.can_accept_more_data():
                break


class _Zstd:
    """Zstandard by Python 3.14 and later."""

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
    """Zstandard by the library of that name."""

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
