"""Tests of redaction, which removes secrets from texts before they are shown."""

import errno

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pulpcore.plugin.download.futures import redact

# Marks that identify generated secrets: no other part of a URL contains them.
MARK = "§"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", ""),
        ("http://h", "http://h"),
        ("http://h:80/a/b.gz", "http://h:80/a/b.gz"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("file:///a/b@c", "file:///a/b@c"),
        ("/a/b@c", "/a/b@c"),
        ("http://h/~a@b", "http://h/~a@b"),
        ("http://u@h/", "http://h/"),
        ("http://u:p@h/", "http://h/"),
        ("http://u:p@[::1]:8/", "http://[::1]:8/"),
        ("http://u:p@p@h/", "http://h/"),
        ("http://u:@h/", "http://h/"),
        ("http://:p@h/", "http://h/"),
        ("http://u:p/p@h/", "http://h/"),
        ("http://u:p?p@h/", "http://***"),
        ("http://u:p#p@h/", "http://***"),
        ("http://u:p@p/p@h/", "http://h/"),
        ("http://u:p@p:p/p@h/", "http://h/"),
        ("http://u:p@p:80/p@h:80/a?b=c", "http://h:80/a?b=***"),
        ("http://u:p@h/?a=p@p", "http://***"),
        ("http://u:p@h/#p@p", "http://***"),
        ("http://u:p@h:p/", "http://***"),
        ("http://h:p/", "http://***"),
        ("http://h:p/?a=p@p", "http://***"),
        ("http://h:123456/", "http://***"),
        ("http://h:8080/@a/b@1", "http://h:8080/@a/b@1"),
        ("file://u:p/a", "file://***"),
        ("file:///a:b", "file:///a:b"),
        ("file:a:b", "file:a:b"),
        ("http://u:pp", "http://***"),
        ("u:p@h:3128", "h:3128"),
        ("u:p@h", "h"),
        ("h:3128", "h:3128"),
        ("http://h/?a=1", "http://h/?a=***"),
        ("http://h?a=1", "http://h?a=***"),
        ("http://h/?a=1&b=2=3&c=", "http://h/?a=***&b=***&c=***"),
        ("http://h/?a=1;b=2", "http://h/?a=***"),
        ("http://h/?token", "http://h/?***"),
        ("http://h/?&a=1&", "http://h/?&a=***&"),
        ("http://h/?", "http://h/?"),
        ("http://h/?a=1?b=2", "http://h/?a=***"),
        ("http://h/#token", "http://h/"),
        ("http://h/a\r\nb", "http://h/a\\r\\nb"),
        ("http://h/\ud800", "http://h/\\ud800"),
        ("http://h/é", "http://h/é"),
    ],
)
def test_url(value, shown):
    """Redaction hides userinfo, query values and the fragment of a URL and keeps the rest."""
    assert redact.url(value) == shown


@pytest.mark.parametrize(
    "value",
    [
        "//u:s3cret@h/",
        "http:/u:s3cret@h/",
        "http:///u:s3cret@h/",
        "http:u:s3cret@h/",
        "http:\\\\u:s3cret@h/",
        "/login?token=s3cret&next=http://h/",
        "h/login?token=s3cret&next=http://h/",
        "u:s3cret@h/?next=http://h/",
        "?a=s3cret",
        "#s3cret",
    ],
)
def test_url_that_is_malformed_or_relative(value):
    """Redaction also hides secrets in malformed and relative URLs."""
    assert "s3cret" not in redact.url(value)


@given(
    st.text(st.characters(exclude_characters="§@", codec="utf-8"), max_size=8),
    st.text(st.characters(exclude_characters="§", codec="utf-8"), max_size=8),
    st.sampled_from(["@", ":", "/", "?", "#", "@1/", "@h:1/", "@h/?"]),
    st.sampled_from(["@h/", "@h:80/a", "@[::1]/a?b=c", "@h/a#b"]),
)
@example("p", "rt:", "/", "@h/")
def test_password_of_any_characters(first, last, between, rest):
    """Redaction hides a password with an unencoded `@`, whatever URL it resembles."""
    url = f"http://u:x@{first}{MARK}{between}{MARK}{last}{rest}"
    assert MARK not in redact.url(url)
    if not any(c.isspace() or c in "\"'<>" for c in first + last):
        assert MARK not in redact.text(f"at '{url}'")


plain = st.characters(exclude_characters=MARK + "/?#")
secret = st.text(plain, max_size=8).map(lambda text: f"{MARK}{text}{MARK}")
host = st.sampled_from(["h", "example.org", "127.0.0.1", "[::1]", "[fe80::1%25eth0]", "", "hé"])
port = st.sampled_from(["", ":", ":80", ":65536", ":x"])
path = st.lists(st.text(st.characters(exclude_characters=MARK + "?#"), max_size=5), max_size=3)


@given(st.sampled_from(["http", "https", "ftp", "HTTP", "socks5h", "x"]), secret, host, port, path)
@example("http", f"{MARK}\\{MARK}", "h", "", [])
def test_userinfo_never_comes_out(scheme, userinfo, host, port, path):
    """Redaction shows nothing of a URL's userinfo, whatever its characters."""
    url = "/".join([f"{scheme}://{userinfo}@{host}{port}", *path])
    assert MARK not in redact.url(url)


@given(st.text(plain, max_size=8), secret, host, path)
def test_password_never_comes_out(name, password, host, path):
    """Redaction shows nothing of user and password, with or without a scheme."""
    url = "/".join([f"{name}:{password}@{host}", *path])
    assert MARK not in redact.url(f"http://{url}")
    assert MARK not in redact.url(url)


values = st.text(st.characters(exclude_characters=MARK + "&#"), max_size=8)


@given(
    st.sampled_from(["http://h", "https://h:1/", "ftp://h/a", "/a", "h/a", "file:///a", "", "//h"]),
    st.lists(st.tuples(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), values)),
    values,
)
def test_values_of_a_query_never_come_out(base, query, fragment):
    """Redaction shows nothing of query values and fragment, whatever their characters."""
    url = f"{base}?" + "&".join(f"{name}={MARK}{value}{MARK}" for name, value in query)
    assert MARK not in redact.url(f"{url}#{MARK}{fragment}")


@given(st.text())
def test_any_text_is_taken(value):
    """Redaction accepts any text. Its result is printable and can be redacted again."""
    shown = redact.url(value)
    assert shown.isprintable()
    shown.encode()
    redact.text(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", ""),
        ("no URL here: why?", "no URL here: why?"),
        ("GET http://u:p@h/?a=1 failed", "GET http://h/?a=*** failed"),
        ("'http://u:p@h/' and \"ftp://v:q@i/\"", "'http://h/' and \"ftp://i/\""),
        ("url: /a?token=1 (Caused by x)", "url: /a?token=*** (Caused by x)"),
        ("<a href='/a?token=1'>", "<a href='/a?token=***"),
        ("'http://h:80/a', \"http://h/b\"", "'http://h:80/a', \"http://h/b\""),
        ("at //u:p@h/a", "at //h/a"),
    ],
)
def test_text(value, shown):
    """Redaction hides the secrets of each URL in a text, and of a query alone."""
    assert redact.text(value) == shown


@pytest.mark.parametrize(
    "value",
    [
        "bad 'http://u:s3'cret@h/'",
        'bad "http://u:s3"cret@h/"',
        "bad http://u:s3<cret@h/",
        "GET http://h/?a=it's&b=s3cret failed",
        'GET http://h/?"a=s3cret" failed',
        "GET /a?b=<s3cret> failed",
        "GET http://h/#it's-s3cret",
    ],
)
def test_text_with_a_quote_in_a_secret(value):
    """For redaction a quote in a password, query or fragment doesn't end the URL."""
    assert "cret" not in redact.text(value)


def test_exception():
    """The arguments of an exception are redacted in place; other types stay."""
    error = ValueError("GET http://u:s3cret@h/", 7, "plain")
    redact.exception(error)
    assert error.args == ("GET http://h/", 7, "plain")


def test_exceptions_behind():
    """Cause, context, `reason` and nested exceptions are redacted, too."""
    secret = "http://u:s3cret@h/"
    behind = [ValueError(secret) for _ in range(4)]
    error = RuntimeError("failed", behind[0])
    error.__cause__, error.__context__, error.reason = behind[1:]
    redact.exception(error)
    assert {behind.args for behind in behind} == {("http://h/",)}


def test_exceptions_in_a_circle():
    """Redaction handles exceptions that refer to each other in a circle."""
    one, two = ValueError("?"), ValueError("http://u:s3cret@h/")
    one.__context__, two.__context__ = two, one
    redact.exception(one)
    assert two.args == ("http://h/",)


def test_secrets_that_are_given():
    """A given secret is hidden wherever it occurs, and a URL that contains it stays a URL."""
    error = ValueError("bad s3cret and http://h/a?b=c d")
    redact.exception(error, "s3cret", "http://h/a?b=c d", "")
    assert error.args == ("bad *** and http://h/a?b=***",)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "GET http://u:s3cret@h/"),
        OSError(errno.EIO, "failed", "http://u:s3cret@h/"),
        OSError(errno.EIO, "failed", "http://h/", None, "http://h/?a=s3cret"),
        OSError("GET http://u:s3cret@h/"),
        ConnectionError("GET http://u:s3cret@h/", ValueError("http://u:s3cret@h/")),
        KeyError("http://u:s3cret@h/"),
    ],
    ids=repr,
)
def test_exceptions_that_keep_their_texts_elsewhere(error):
    """The str and repr of an exception show no secret, wherever its class keeps its text."""
    redact.exception(error)
    assert "s3cret" not in str(error)
    assert "s3cret" not in repr(error)


def test_exception_with_bytes():
    """Redaction handles exceptions whose file name is bytes."""
    error = OSError(errno.ENOENT, "failed", b"/a?b=s3cret\xff")
    redact.exception(error)
    assert error.filename == b"/a?b=***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://me:s3cret@h/", "http"),
        ("gopher:", "gopher"),
        ("javascript:alert(1)", "javascript"),
        ("s3cret:x@h/", None),
        ("s3cret@h/", None),
        ("s3cret", None),
        ("s3_cret://h", None),
        (":x", None),
    ],
)
def test_scheme(value, shown):
    """Redaction shows a scheme, but hides a part that may be a user name."""
    assert redact.scheme(value) == shown


@pytest.mark.parametrize("start", [" ", "\t", "\0", "ht\n", "\r\n "])
def test_characters_that_a_parser_leaves_out(start):
    """White space before or within a URL's scheme doesn't prevent redaction."""
    value = f"{start}tp://u:s3cret@h/?a=s3cret" if "ht" in start else f"{start}http://u:s3cret@h/"
    assert "s3cret" not in redact.url(value)


@pytest.mark.parametrize("act", ["s3cret\udc80".encode, b"s3cret\xff".decode])
def test_text_that_is_not_unicode(act):
    """A redacted encoding error shows neither the text nor a position in it."""
    with pytest.raises(UnicodeError) as caught:
        act()
    error = caught.value
    assert "position 6" in str(error)
    redact.exception(error)
    for shown in (str(error), repr(error), repr(error.args), repr(error.object)):
        assert "s3cret" not in shown
        assert "6" not in shown
