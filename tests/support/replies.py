"""A corpus of raw HTTP responses: valid, odd, broken and hostile, with the expected results.

The opinions are those of RFC 9110 and RFC 9112 and of the contract; where the RFCs let a client
choose, a reply is refused whose framing two readers could understand in two ways. `curl` tells
where curl 7.88 decides otherwise.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pulpcore.plugin.download.futures import DownloadFailed, NotAuthorized, NotFound

HELLO = b"hello"
OK = b"HTTP/1.1 200 OK\r\n"

HEAD_LIMIT = 128 * 1024


class Fails(NamedTuple):
    """How a download fails: text of its reason, and its type."""

    reason: str
    kind: type[DownloadFailed] = DownloadFailed


@dataclass(frozen=True)
class Row:
    """One response.

    Attributes:
        name: What is special about the response.
        raw: All its bytes.
        expected: The body, or how the download fails.
        ends: The end of the connection is part of the response. (Others must work without it.)
        curl: The result of curl, if it differs.
        path: The path of the URL.
    """

    name: str
    raw: bytes
    expected: bytes | Fails
    ends: bool = False
    curl: str = ""
    path: str = "/"


def untrusted(reason: str) -> Fails:
    """Expect a refusal, because the framing can't be trusted."""
    return Fails(f"the reply can't be trusted: .*{reason}")


BAD_STATUS = untrusted("(doesn't begin with HTTP/|status line)")
BAD_FIELD = untrusted("isn't a field")
BAD_LENGTH = untrusted("isn't a whole number")
DIFFERENT = untrusted("differ")
BAD_CODING = untrusted("isn't 'chunked'")
BAD_SIZE = untrusted("isn't plain hex")
BAD_LINE = untrusted("isn't ended by CR LF")
BAD_CHUNK = untrusted("longer or shorter than its size|isn't ended by CR LF")
TOO_LONG = untrusted("longer than")
CUT = Fails("ended before the content did")
NO_REPLY = Fails("without a reply")


def replied(status: int, kind: type[DownloadFailed] = DownloadFailed) -> Fails:
    """Expect a failure because of the status."""
    return Fails(f"the server replied {status}", kind)


def framed(*fields: bytes, body: bytes = HELLO, start: bytes = OK) -> bytes:
    """Make a response with exactly these lines in its head."""
    return start + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def with_length(value: bytes, body: bytes = HELLO) -> bytes:
    """Make a response with this Content-Length."""
    return framed(b"Content-Length: " + value, body=body)


def with_field(*fields: bytes) -> bytes:
    """Make a response with these lines, followed by a correct Content-Length."""
    return framed(*fields, b"Content-Length: 5")


def with_coding(*values: bytes, start: bytes = OK) -> bytes:
    """Make a chunked response with this name of the transfer coding."""
    fields = (b"Transfer-Encoding: " + value for value in values)
    return framed(*fields, body=CHUNKS, start=start)


def with_chunks(chunks: bytes, *fields: bytes) -> bytes:
    """Make a chunked response with exactly this body."""
    return framed(b"Transfer-Encoding: chunked", *fields, body=chunks)


def with_start(line: bytes) -> bytes:
    """Make a response with this status line."""
    return framed(b"Content-Length: 5", start=line + b"\r\n")


def gzipped(data: bytes) -> bytes:
    """Compress with gzip."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
HUGE = b"x" * (HEAD_LIMIT - 200)
GZIP = gzipped(HELLO)


def _status_lines() -> Iterator[Row]:
    """Status lines (RFC 9112 section 4, RFC 9110 section 15)."""
    for name, line in {
        "plain": b"HTTP/1.1 200 OK",
        "no reason": b"HTTP/1.1 200 ",
        "no space behind the status": b"HTTP/1.1 200",
        "another reason": b"HTTP/1.1 200 404 Not Found",
        "reason beyond ASCII": b"HTTP/1.1 200 \xc3\xa0 la carte \xff",
        "203": b"HTTP/1.1 203 Non-Authoritative Information",
        "HTTP/1.0 with a length": b"HTTP/1.0 200 OK",
    }.items():
        yield Row(f"status line: {name}", with_start(line), HELLO)
    later = with_start(b"HTTP/1.2 200 OK")  # RFC 9110 section 6.2
    yield Row("status line: a later minor version", later, HELLO, curl="refuses it")
    for name, line, curl in [
        ("HTTP/2.0", b"HTTP/2.0 200 OK", "takes it"),
        ("HTTP/2", b"HTTP/2 200 OK", "takes it"),
        ("HTTP/3", b"HTTP/3 200 OK", ""),
        ("HTTP/0.9 by name", b"HTTP/0.9 200 OK", ""),
        ("HTTP/11.1", b"HTTP/11.1 200 OK", ""),
        ("HTTP/1.10", b"HTTP/1.10 200 OK", ""),
        ("HTTP/1", b"HTTP/1 200 OK", ""),
        ("HTTP/1.", b"HTTP/1. 200 OK", ""),
        ("no version", b"HTTP/ 200 OK", ""),
        ("no slash", b"HTTP 200 OK", ""),
        ("tab in place of the space", b"HTTP/1.1\t200 OK", ""),
        ("tab behind the status", b"HTTP/1.1 200\tOK", "takes it"),
        ("no space before the status", b"HTTP/1.1200 OK", ""),
        ("status 99", b"HTTP/1.1 99 Low", ""),
        ("status 099", b"HTTP/1.1 099 Low", ""),
        ("status 000", b"HTTP/1.1 000 Zero", ""),
        ("status 2000", b"HTTP/1.1 2000 OK", ""),
        ("status 0200", b"HTTP/1.1 0200 OK", ""),
        ("status 20", b"HTTP/1.1 20 OK", ""),
        ("status +20", b"HTTP/1.1 +20 OK", ""),
        ("status -200", b"HTTP/1.1 -200 OK", ""),
        ("status 2.0", b"HTTP/1.1 2.0 OK", ""),
        ("status 20x", b"HTTP/1.1 20x OK", ""),
        ("status 200x", b"HTTP/1.1 200x OK", "takes it"),
        ("status 0x1", b"HTTP/1.1 0x1 OK", ""),
        ("status of other digits", b"HTTP/1.1 \xb2\xb0\xb0 OK", ""),
        ("no status", b"HTTP/1.1", ""),
        ("no status, but a reason", b"HTTP/1.1 OK", ""),
        ("NUL in the reason", b"HTTP/1.1 200 O\0K", ""),
        ("CR in the reason", b"HTTP/1.1 200 O\rK", "takes it"),
    ]:
        yield Row(f"status line: {name}", with_start(line), BAD_STATUS, curl=curl)
    for name, line in {
        "ICY": b"ICY 200 OK",
        "another protocol": b"RTSP/1.0 200 OK",
        "SSH": b"SSH-2.0-server",
        "SMTP": b"220 mail.example ESMTP",
        "white space before it": b" HTTP/1.1 200 OK",
        "byte order mark before it": b"\xef\xbb\xbfHTTP/1.1 200 OK",
        "an empty line before it": b"\r\nHTTP/1.1 200 OK",
        "NUL before it": b"\0HTTP/1.1 200 OK",
        "a field before it": b"Server: x\r\nHTTP/1.1 200 OK",
    }.items():
        yield Row(f"status line: {name}", with_start(line), BAD_STATUS)
    low = with_start(b"http/1.1 200 OK")
    yield Row("status line: lower case", low, BAD_STATUS, curl="takes it")
    yield Row("HTTP/0.9", b"<html>hello</html>", BAD_STATUS)
    yield Row("HTTP/0.9, lines", b"<html>\r\n\r\nhello\r\n\r\n</html>", BAD_STATUS)
    yield Row("nothing but line ends", b"\r\n\r\n\r\n\r\n", BAD_STATUS)
    yield Row("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x28", BAD_STATUS)
    yield Row("nothing", b"", NO_REPLY, ends=True)
    yield Row("cut in the name of the protocol", b"HTT", CUT, ends=True)


def _statuses() -> Iterator[Row]:
    """Statuses, of which only 200 and 203 contain the file."""
    for status in (201, 202, 205, 207, 226, 299, 206, 300, 302, 304, 305, 306, 399):
        reason = "a part of the file, which was not asked for" if status == 206 else None
        fails = replied(status) if reason is None else Fails(reason)
        curl = "takes what came as the file"
        body = b"" if status == 304 else HELLO
        start = b"HTTP/1.1 %d X\r\n" % status
        raw = framed(b"Content-Length: %d" % len(body), body=body, start=start)
        yield Row(f"status {status}", raw, fails, curl=curl)
    for status, kind in {
        400: DownloadFailed,
        401: NotAuthorized,
        403: NotAuthorized,
        404: NotFound,
        407: NotAuthorized,
        410: NotFound,
        416: DownloadFailed,
        418: DownloadFailed,
        429: DownloadFailed,
        451: DownloadFailed,
        499: DownloadFailed,
        500: DownloadFailed,
        503: DownloadFailed,
        599: DownloadFailed,
        600: DownloadFailed,
        999: DownloadFailed,
    }.items():
        raw = framed(b"Content-Length: 5", start=b"HTTP/1.1 %d X\r\n" % status)
        yield Row(f"status {status}", raw, replied(status, kind))
    for status in (204, 304):
        start = b"HTTP/1.1 %d X\r\n" % status
        fails, file = replied(status), "takes it as an empty file"
        for name, fields in {
            "nothing else": (),
            "a length": (b"Content-Length: 5",),
            "a length of 0": (b"Content-Length: 0",),
            "chunked": (b"Transfer-Encoding: chunked",),
            "an unknown coding": (b"Transfer-Encoding: x",),
            "close": (b"Connection: close",),
        }.items():
            raw = framed(*fields, body=b"", start=start)
            # There is no body by definition, so the client must not wait (RFC 9112 section 6.3).
            yield Row(f"{status} with {name}", raw, fails, curl=file)
        raw = framed(b"Transfer-Encoding: chunked", body=CHUNKS, start=start)
        yield Row(f"{status} with chunks", raw, fails, curl=file)
        raw = framed(b"Content-Length: 5", start=start)
        yield Row(f"{status} with a body", raw, fails, curl=file)
    raw = framed(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", start=b"HTTP/1.1 205 X\r\n")
    yield Row("205, chunked", raw, replied(205), curl="takes it as an empty file")
    ranged = b"HTTP/1.1 206 Partial Content\r\n"
    part = Fails("a part of the file, which was not asked for")
    for content_range in (b"bytes 0-4/5", b"bytes 0-4/*", b"bytes 3-7/8", b"x"):
        raw = framed(b"Content-Range: " + content_range, b"Content-Length: 5", start=ranged)
        yield Row(f"206 with {content_range.decode()}", raw, part, curl="takes it as the file")
    yield Row(
        "a range in a 200",
        with_field(b"Content-Range: bytes 5-9/10"),
        Fails("a part of it only"),
        curl="takes it as the file",
    )
    yield Row("the whole range in a 200", with_field(b"Content-Range: bytes 0-4/5"), HELLO)


def _interim() -> Iterator[Row]:
    """Interim responses, which are skipped (RFC 9110 section 15.2)."""
    final = with_length(b"5")
    for status in (100, 102, 103, 150, 199):
        raw = b"HTTP/1.1 %d Wait\r\nLink: </a>\r\n\r\n" % status + final
        yield Row(f"interim {status}", raw, HELLO)
    more = b"HTTP/1.1 100 Continue\r\n\r\n"
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    yield Row("interim: two", more + early + final, HELLO)
    yield Row("interim: ten", more * 10 + final, HELLO)
    yield Row("interim: too many", more * 40 + final, untrusted("interim"), curl="takes any number")
    yield Row("interim: before chunks", early + with_chunks(CHUNKS), HELLO)
    yield Row(
        "interim: its length doesn't count",
        framed(b"Content-Length: 3", body=final, start=b"HTTP/1.1 100 Continue\r\n"),
        HELLO,
    )
    yield Row(
        "interim: its coding doesn't count",
        framed(b"Transfer-Encoding: chunked", body=final, start=b"HTTP/1.1 103 X\r\n"),
        HELLO,
    )
    yield Row(
        "interim: its end of the connection doesn't count",
        framed(b"Connection: close", body=final, start=b"HTTP/1.1 100 Continue\r\n"),
        HELLO,
    )
    yield Row("interim: before a 404", more + with_start(b"HTTP/1.1 404 X"), replied(404, NotFound))
    yield Row(
        "interim: nothing but",
        more,
        Fails("without a reply|ended before the content did"),
        ends=True,
    )
    yield Row(
        "interim: cut in the real one", more + final[:20], CUT, ends=True, curl="an empty file"
    )
    yield Row("interim: then no HTTP", more + HELLO + b"\r\n\r\n", BAD_STATUS)
    yield Row("interim: broken", b"HTTP/1.1 100 Continue\r\nx\r\n\r\n" + final, BAD_FIELD)
    yield Row("interim: by HTTP/1.0", b"HTTP/1.0 100 Continue\r\n\r\n" + final, HELLO)
    upgraded = framed(b"Upgrade: h2c", b"Connection: Upgrade", start=b"HTTP/1.1 101 Switching\r\n")
    yield Row(
        "101",
        upgraded,
        untrusted("switched to another protocol"),
        curl="takes what follows as the body",
    )


def _heads() -> Iterator[Row]:
    """Header fields (RFC 9112 sections 2.2 and 5; RFC 9110 section 5.5)."""
    for name, raw in {
        "no fields but the length": with_length(b"5"),
        "LF alone ends its lines": with_length(b"5").replace(b"\r\n", b"\n"),
        "LF alone ends one line": with_field(b"A: b\nC: d"),
        "LF alone ends it": with_length(b"5").replace(b"\r\n\r\n", b"\r\n\n"),
        "LF alone ends its last line": with_length(b"5").replace(b"\r\n\r\n", b"\n\r\n"),
        "no space behind the colon": framed(b"Content-Length:5"),
        "much white space": framed(b"Content-Length: \t 5 \t "),
        "name in odd case": framed(b"cOnTeNt-LeNgTh: 5"),
        "an empty value": with_field(b"A:", b"B: "),
        "odd characters in a name": with_field(b"!#$%&'*+-.^_`|~9z: b"),
        "bytes beyond ASCII": with_field(b"A: \xe9\xff\xc3\xa9"),
        "colons in a value": with_field(b"A: b: c:d"),
        "a folded line": with_field(b"A: b\r\n c\r\n\td"),
        "a line of white space": with_field(b"A: b\r\n  "),
        "the same field often": with_field(*[b"A: b"] * 200),
        "5,000 fields": with_field(*(b"F%d: value" % number for number in range(5000))),
        "other control characters in a value": with_field(b"A: b\x01\x0b\x0c\x1b\x7f"),
    }.items():
        yield Row(f"head: {name}", raw, HELLO)
    folded = framed(b"Content-Length:\r\n 5")
    yield Row("head: a folded length", folded, HELLO, curl="refuses it")
    yield Row("head: one huge field", with_field(b"A: " + HUGE), HELLO, curl="refuses it")
    for name, field in [
        ("no name", b": value"),
        ("space before the colon", b"A : b"),
        ("tab before the colon", b"A\t: b"),
        ("space in a name", b"A B: c"),
        ("CR in a value", b"A: b\rc"),
        ("CR before the line end", b"A: b\r"),
        ("CR hides a length", b"A: b\rContent-Length: 3"),
        ("CR in a folded line", b"A: b\r\n c\rd"),
        ("a name beyond ASCII", b"\xe9: b"),
        ("parentheses in a name", b"A(1): b"),
        ("quotes around a name", b'"A": b'),
    ]:
        # Malformed, but irrelevant to where the body ends.
        yield Row(f"head: {name}", with_field(field), HELLO)
    for name, field, curl in [
        ("no colon", b"Server", ""),
        ("an empty name", b" : value", ""),
        ("space before the colon of the length", b"Content-Length : 3", "passes over it"),
        ("space before the colon of the coding", b"Transfer-Encoding : chunked", "passes over it"),
        ("NUL in a name", b"A\0: b", ""),
        ("NUL in a value", b"A: b\0c", ""),
        ("CR in a name", b"A\rB: c", ""),
        ("NUL in a folded line", b"A: b\r\n \0", ""),
        ("a second status line", b"HTTP/1.1 200 OK", ""),
        ("a request line", b"GET / HTTP/1.1", ""),
    ]:
        yield Row(f"head: {name}", with_field(field), BAD_FIELD, curl=curl)
    yield Row("head: begins with a fold", framed(b" A: b", b"Content-Length: 5"), BAD_FIELD)
    yield Row(
        "head: CR CR LF is no empty line",
        with_length(b"5").replace(b"\r\n\r\n", b"\r\n\r\r\n") + b"\r\n\r\n",
        BAD_FIELD,
        curl="takes it as one",
    )
    yield Row(
        "head: CR alone ends its lines",
        with_length(b"5").replace(b"\r\n", b"\r"),
        CUT,
        ends=True,
    )
    many = with_field(*[b"A: " + b"b" * 96] * 1500)
    yield Row("head: too many fields", many, TOO_LONG, curl="takes it")
    yield Row("head: too long a field", with_field(b"A: " + b"b" * 2**18), TOO_LONG)
    yield Row("head: too long a reason", with_start(b"HTTP/1.1 200 " + b"b" * 2**18), TOO_LONG)
    fold = with_field(b"A: b" + b"\r\n c" * 2**16)
    yield Row("head: too long a fold", fold, TOO_LONG, curl="takes it")


def _lengths() -> Iterator[Row]:
    """Lengths (RFC 9110 section 8.6, RFC 9112 section 6.3)."""
    for name, value in {
        "leading zeros": b"005",
        "many leading zeros": b"0" * 30 + b"5",
        "a list of the same": b"5, 5",
        "a list of the same, no space": b"5,5,5",
    }.items():
        yield Row(f"length: {name}", with_length(value), HELLO)
    yield Row("length: 0", with_length(b"0", b""), b"")
    yield Row("length: repeated", framed(b"Content-Length: 5", b"content-length: 5"), HELLO)
    for name, value, curl in [
        ("negative", b"-5", ""),
        ("-1", b"-1", ""),
        ("-0", b"-0", ""),
        ("signed", b"+5", "takes 5"),
        ("letters", b"abc", ""),
        ("letters behind it", b"5x", "takes 5"),
        ("bytes", b"5 bytes", "takes 5"),
        ("hex", b"0x5", "takes 0"),
        ("an underscore", b"0_5", "takes 0"),
        ("a fraction", b"5.0", "takes 5"),
        ("an exponent", b"5e0", "takes 5"),
        ("a space within", b"5 5", "takes 5"),
        ("a tab within", b"5\t5", "takes 5"),
        ("a semicolon", b"5;", "takes 5"),
        ("a quote", b'"5"', ""),
        ("empty", b"", ""),
        ("blank", b"  ", ""),
        ("vertical tab before it", b"\x0b5", ""),
        ("vertical tab behind it", b"5\x0b", "takes 5"),
        ("form feed", b"\x0c5", ""),
        ("unit separator", b"5\x1f", "takes 5"),
        ("delete", b"5\x7f", "takes 5"),
        ("next line", b"5\x85", "takes 5"),
        ("no-break space", b"\xa05", ""),
        ("digits of another script", "\u0665".encode(), ""),
        ("superscript", b"\xb2", ""),
        ("fold within", b"5\r\n 0", "takes 5"),
        ("more than fits in 64 bits", b"18446744073709551621", "passes over it"),
        ("a thousand digits", b"9" * 1000, "passes over it"),
    ]:
        yield Row(f"length: {name}", with_length(value), BAD_LENGTH, curl=curl)
    for name, value, curl in [
        ("a list that differs", b"5, 6", "takes the first"),
        ("a list that differs, 0", b"0, 5", "takes the first"),
        ("an empty element", b"5,", "takes 5"),
        ("an empty element first", b",5", ""),
        ("a list of the same written differently", b"5, 05", "takes 5"),
        ("a list with a sign", b"5, +5", "takes 5"),
    ]:
        fails = untrusted("differ|isn't a whole number")
        yield Row(f"length: {name}", with_length(value), fails, curl=curl)
    for name, values, curl in [
        ("repeated, the second is less", (b"5", b"3"), "takes 3"),
        ("repeated, the second is more", (b"5", b"7"), ""),
        ("repeated, not beside each other", (b"5\r\nA: b", b"6"), ""),
        ("repeated, one is broken", (b"5", b"x"), ""),
        ("repeated, one is empty", (b"5", b""), ""),
    ]:
        fields = (b"Content-Length: " + value for value in values)
        fails = untrusted("differ|isn't a whole number")
        yield Row(f"length: {name}", framed(*fields), fails, curl=curl)
    yield Row("length: more than comes", with_length(b"6"), CUT, ends=True)
    yield Row("length: far more than comes", with_length(b"9" * 17), CUT, ends=True)
    yield Row("length: nothing comes", with_length(b"5", b""), CUT, ends=True)
    # The rest belongs to no response. The body is complete.
    yield Row("length: less than comes", with_length(b"4"), HELLO[:4])
    yield Row("length: 0, but something comes", with_length(b"0"), b"")


def _codings() -> Iterator[Row]:
    """Transfer codings (RFC 9112 sections 6.1, 6.3 and 7)."""
    for value in (b"chunked", b"Chunked", b"CHUNKED", b"\tchunked \t"):
        yield Row(f"coding: {value!r}", with_coding(value), HELLO)
    yield Row(
        "coding: folded",
        framed(b"Transfer-Encoding:\r\n chunked", body=CHUNKS),
        HELLO,
        curl="takes the chunks as the body",
    )
    for value, curl in {
        b"identity": "takes the chunks as the body",
        b"": "takes the chunks as the body",
        b"gzip": "",
        b"x": "",
        b"gzip, chunked": "",
        b"chunked, gzip": "",
        b"chunked, chunked": "takes it",
        b"chunked, identity": "takes it",
        b"identity, chunked": "takes it",
        b"x, chunked": "",
        b"chunked, x": "",
        b"chunked,": "takes it",
        b",chunked": "takes it",
        b"chunked;q=1": "",
        b"xchunked": "",
        b"chunkedx": "",
        b"chunk": "",
        b"\x0bchunked": "",
        b"chunked\x0b": "takes it",
        b"chunked\xa0": "",
        b"\xe2\x80\x8bchunked": "",
        b'"chunked"': "",
        b"chun ked": "",
        b"c\xc5\xbfhunked": "",
    }.items():
        yield Row(f"coding: {value!r}", with_coding(value), BAD_CODING, curl=curl)
    for first, second, curl in [
        (b"chunked", b"chunked", "takes it"),
        (b"chunked", b"identity", "takes it"),
        (b"x", b"chunked", ""),
    ]:
        name = f"coding: {first.decode()} and {second.decode()}"
        yield Row(name, with_coding(first, second), BAD_CODING, curl=curl)
    # The coding takes precedence, and the connection isn't reused (RFC 9112 section 6.1).
    for length in (b"5", b"3", b"15", b"0", b"9999"):
        name = f"coding: chunked beside a length of {length.decode()}"
        yield Row(name, with_chunks(CHUNKS, b"Content-Length: " + length), HELLO)
        fields = (b"Content-Length: " + length, b"Transfer-Encoding: chunked")
        yield Row(f"{name}, which comes first", framed(*fields, body=CHUNKS), HELLO)
    bad = with_chunks(CHUNKS, b"Content-Length: -5")
    yield Row("coding: chunked beside a bad length", bad, BAD_LENGTH)
    bad = framed(b"Transfer-Encoding: x", b"Content-Length: 5")
    yield Row("coding: an unknown one beside a length", bad, BAD_CODING)
    # Invalid by RFC 9112 section 6.1, but unambiguous.
    old = b"HTTP/1.0 200 OK\r\n"
    yield Row("coding: chunked by HTTP/1.0", with_coding(b"chunked", start=old), HELLO)


def _chunks() -> Iterator[Row]:
    """Chunks (RFC 9112 section 7.1)."""
    for name, chunks in {
        "one": CHUNKS,
        "several": b"1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n",
        "leading zeros": b"0005\r\nhello\r\n0\r\n\r\n",
        "16 digits": b"0000000000000005\r\nhello\r\n0\r\n\r\n",
        "32 digits": b"0" * 31 + b"5\r\nhello\r\n0\r\n\r\n",
        "several zeros at the end": b"5\r\nhello\r\n0000\r\n\r\n",
        "spaces behind a size": b"5  \r\nhello\r\n0  \r\n\r\n",
        "an extension": b"5;a\r\nhello\r\n0;b\r\n\r\n",
        "an extension with a value": b"5;a=b;c=d\r\nhello\r\n0\r\n\r\n",
        "an extension with a quoted value": b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n',
        "white space around an extension": b"5 ; a = b\r\nhello\r\n0 ;c\r\n\r\n",
        "an empty extension": b"5;\r\nhello\r\n0;\r\n\r\n",
        "a long extension": b"5;" + b"a" * 9999 + b"\r\nhello\r\n0\r\n\r\n",
        "a trailer": b"5\r\nhello\r\n0\r\nDigest: x\r\n\r\n",
        "trailers": b"5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
        "a trailer like framing": b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
        "a trailer that is folded": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    }.items():
        curl = "refuses more than 16 digits" if name == "32 digits" else ""
        yield Row(f"chunks: {name}", with_chunks(chunks), HELLO, curl=curl)
    yield Row("chunks: none", with_chunks(b"0\r\n\r\n"), b"")
    yield Row(
        "chunks: content that looks like chunks",
        with_chunks(b"f\r\n" + CHUNKS + b"\r\n0\r\n\r\n"),
        CHUNKS,
    )
    yield Row(
        "chunks: hex in both cases",
        with_chunks(b"Aa\r\n" + b"x" * 170 + b"\r\n0\r\n\r\n"),
        b"x" * 170,
    )
    many = b"1\r\nx\r\n" * 3000
    yield Row("chunks: 3,000", with_chunks(many + b"0\r\n\r\n"), b"x" * 3000)
    big = b"xyz" * 100_000
    yield Row("chunks: a big one", with_chunks(b"%x\r\n%b\r\n0\r\n\r\n" % (len(big), big)), big)
    for name, size, curl in [
        ("+5", b"+5", ""),
        ("-5", b"-5", ""),
        ("0x5", b"0x5", ""),
        ("0X5", b"0X5", ""),
        ("0_5", b"0_5", ""),
        ("5h", b"5h", "takes 5"),
        ("5g5", b"5g5", "takes 5"),
        ("5.0", b"5.0", "takes 5"),
        ("5,0", b"5,0", "takes 5"),
        ("5=a", b"5=a", "takes 5"),
        ('"5"', b'"5"', ""),
        ("a letter", b"x", ""),
        ("none", b"", ""),
        ("none but an extension", b";a=b", ""),
        ("none but a space", b" ", ""),
        ("a space before it", b" 5", ""),
        ("a tab before it", b"\t5", ""),
        ("a space within", b"5 5", "takes 5"),
        ("vertical tab behind it", b"5\x0b", "takes 5"),
        ("form feed before it", b"\x0c5", ""),
        ("NUL behind it", b"5\0", "takes 5"),
        ("CR within", b"5\r5", "takes 5"),
        ("CR before the line end", b"5\r", "takes 5"),
        ("CR in an extension", b"5;a\rb", "takes 5"),
        ("NUL in an extension", b"5;a\0b", "takes 5"),
        ("no-break space", b"5\xa0", "takes 5"),
        ("digits of another script", "\u0665".encode(), ""),
        ("64 bits", b"8000000000000005", ""),
        ("beyond 64 bits", b"10000000000000005", ""),
        ("a hundred digits", b"f" * 100, ""),
        ("a comment", b"5 (five)", "takes 5"),
        ("hex and a unit", b"5h;a", "takes 5"),
    ]:
        raw = with_chunks(size + b"\r\nhello\r\n0\r\n\r\n")
        yield Row(f"chunks: size {name}", raw, BAD_SIZE, curl=curl)
    for name, chunks, fails, curl in [
        ("LF alone ends a size", b"5\nhello\r\n0\r\n\r\n", BAD_LINE, "takes it"),
        ("LF alone ends an extension", b"5;a\nhello\r\n0\r\n\r\n", BAD_LINE, "takes it"),
        ("LF alone ends a chunk", b"5\r\nhello\n0\r\n\r\n", BAD_LINE, "takes it"),
        ("LF alone ends the last size", b"5\r\nhello\r\n0\n\r\n", BAD_LINE, "takes it"),
        ("LF alone ends it all", b"5\r\nhello\r\n0\r\n\n", BAD_LINE, "takes it"),
        ("LF alone ends a trailer", b"5\r\nhello\r\n0\r\nA: b\n\r\n", BAD_LINE, "takes it"),
        ("LF alone everywhere", CHUNKS.replace(b"\r\n", b"\n"), BAD_LINE, "takes it"),
        ("CR alone ends a size", b"5\rhello\r\n0\r\n\r\n", BAD_SIZE, ""),
        ("CR alone ends a chunk", b"5\r\nhello\r0\r\n\r\n", BAD_CHUNK, ""),
        ("LF CR ends a size", b"5\n\rhello\r\n0\r\n\r\n", BAD_LINE, ""),
        ("longer than its size", b"3\r\nhello\r\n0\r\n\r\n", BAD_CHUNK, ""),
        ("one byte longer than its size", b"4\r\nhello\r\n0\r\n\r\n", BAD_CHUNK, ""),
        ("one byte shorter than its size", b"6\r\nhello\r\n0\r\n\r\n", BAD_CHUNK, "takes it"),
        ("two bytes shorter than its size", b"7\r\nhello\r\n0\r\n\r\n", BAD_CHUNK, ""),
        ("nothing ends a chunk", b"5\r\nhello0\r\n\r\n", BAD_CHUNK, ""),
        ("an empty line too many", b"5\r\nhello\r\n\r\n0\r\n\r\n", BAD_SIZE, ""),
        ("an empty line first", b"\r\n5\r\nhello\r\n0\r\n\r\n", BAD_SIZE, ""),
        ("no chunks at all", b"hello\r\n\r\n", BAD_SIZE, ""),
        ("a trailer without a colon", b"5\r\nhello\r\n0\r\nx\r\n\r\n", BAD_FIELD, ""),
        ("a trailer with CR", b"5\r\nhello\r\n0\r\nA: \rb\r\n\r\n", BAD_FIELD, ""),
        # A server that sends an empty buffer as a chunk ends its reply too early.
        ("a chunk behind the last", b"5\r\nhello\r\n0\r\n5\r\nhello\r\n\r\n", BAD_FIELD, ""),
        (
            "too long an extension",
            b"5;" + b"a" * 2**18 + b"\r\nhello\r\n0\r\n\r\n",
            TOO_LONG,
            "takes it",
        ),
        ("too long a trailer", b"0\r\nA: " + b"b" * 2**18 + b"\r\n\r\n", TOO_LONG, ""),
        ("too many trailers", b"0\r\n" + b"A: b\r\n" * 2**16 + b"\r\n", TOO_LONG, "takes it"),
    ]:
        yield Row(f"chunks: {name}", with_chunks(chunks), fails, curl=curl)
    for name, chunks in {
        "nothing comes": b"",
        "cut in a size": b"5",
        "cut in an extension": b"5;a",
        "cut in the end of a size": b"5\r",
        "cut before a chunk": b"5\r\n",
        "cut in a chunk": b"5\r\nhel",
        "cut behind a chunk": b"5\r\nhello",
        "cut before the last": b"5\r\nhello\r\n",
        "cut in the last": b"5\r\nhello\r\n0",
        "cut before the trailers": b"5\r\nhello\r\n0\r\n",
        "cut in a trailer": b"5\r\nhello\r\n0\r\nA: b",
        "cut behind a trailer": b"5\r\nhello\r\n0\r\nA: b\r\n",
        "cut in the very end": b"5\r\nhello\r\n0\r\n\r",
        "a huge size": b"fffffffffffffff\r\nhello",
    }.items():
        curl = "takes it" if name == "cut in the very end" else ""
        yield Row(f"chunks: {name}", with_chunks(chunks), CUT, ends=True, curl=curl)


def _closing() -> Iterator[Row]:
    """Bodies that the end of the connection ends (RFC 9112 section 6.3, rule 8)."""
    for name, raw, expected in [
        ("HTTP/1.1", framed(), HELLO),
        ("HTTP/1.0", framed(start=b"HTTP/1.0 200 OK\r\n"), HELLO),
        ("nothing comes", framed(body=b""), b""),
        ("it says close", framed(b"Connection: close"), HELLO),
        ("it says keep-alive", framed(b"Connection: keep-alive"), HELLO),
        ("content like a reply", framed(body=with_length(b"5")), with_length(b"5")),
        ("content like chunks", framed(body=CHUNKS), CHUNKS),
    ]:
        yield Row(f"close: {name}", raw, expected, ends=True)
    yield Row("close: with a length", with_field(b"Connection: close"), HELLO)
    yield Row("close: with chunks", with_chunks(CHUNKS, b"Connection: close"), HELLO)
    yield Row("close: the length counts", framed(b"Content-Length: 9"), CUT, ends=True)


def _content_codings() -> Iterator[Row]:
    """Content codings that the request didn't accept; see `http.coding`."""

    def encoded(coding: bytes, body: bytes, *fields: bytes) -> bytes:
        length = b"Content-Length: %d" % len(body)
        return framed(b"Content-Encoding: " + coding, length, *fields, body=body)

    asis, refused = "takes the bytes as they come", Fails("not asked for")
    broken = Fails("isn't well-formed gzip|ends too early")
    twice = gzipped(GZIP)
    yield Row("content: gzip", encoded(b"gzip", GZIP), HELLO, curl=asis)
    yield Row("content: x-gzip", encoded(b"X-GZip", GZIP), HELLO, curl=asis)
    yield Row("content: gzip, two members", encoded(b"gzip", GZIP * 2), HELLO * 2, curl=asis)
    yield Row("content: gzip of gzip", encoded(b"gzip, gzip", twice), HELLO, curl=asis)
    yield Row("content: a published .gz", encoded(b"gzip", GZIP), GZIP, path="/a.gz")
    yield Row("content: a packed .gz", encoded(b"gzip, gzip", twice), GZIP, curl=asis, path="/a.gz")
    typed = encoded(b"gzip", GZIP, b"Content-Type: application/gzip; x=y")
    yield Row("content: a type that is gzip", typed, GZIP)
    deflated = zlib.compress(HELLO)
    yield Row("content: deflate", encoded(b"deflate", deflated), HELLO, curl=asis)
    raw = deflated[2:-4]
    yield Row("content: deflate without zlib", encoded(b"deflate", raw), HELLO, curl=asis)
    yield Row("content: identity", encoded(b"identity", HELLO), HELLO)
    yield Row("content: xz", encoded(b"xz", HELLO), refused, curl=asis)
    yield Row("content: unknown", encoded(b"utf-8", HELLO), HELLO)
    yield Row("content: none", encoded(b"none", HELLO), HELLO)
    yield Row("content: gzip that isn't", encoded(b"gzip", HELLO), broken, curl=asis)
    yield Row("content: gzip that is short", encoded(b"gzip", GZIP[:-1]), broken, curl=asis)
    yield Row("content: gzip of nothing", encoded(b"gzip", b""), b"")
    yield Row("content: gzip and more", encoded(b"gzip", GZIP + b"x"), broken, curl=asis)
    yield Row("content: damaged gzip", encoded(b"gzip", GZIP[:-8] + b"\0" * 8), broken, curl=asis)


ROWS = [
    *_status_lines(),
    *_statuses(),
    *_interim(),
    *_heads(),
    *_lengths(),
    *_codings(),
    *_chunks(),
    *_closing(),
    *_content_codings(),
]
