"""Tests of parsing URLs."""

import re
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpcore.plugin.download.futures.net.url import PORTS, Origin, join, parse

# Every character that the path of a URL may contain (RFC 3986 section 2), except '%' and the two
# that end the path.
STAYS = "ABCXYZabcxyz0123456789-._~:/[]@!$&'()*+,;="
SECRET = "s3cretPW"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://h", ("http", "h", 80)),
        ("HTTP://H/a", ("http", "h", 80)),
        ("https://h:8443", ("https", "h", 8443)),
        ("https://h:/", ("https", "h", 443)),
        ("http://h:0081/", ("http", "h", 81)),
        ("https://me:pw@[::1]/", ("https", "::1", 443)),
        ("http://[FE80::1%25eth0]:81/", ("http", "fe80::1%eth0", 81)),
        ("http://[fe80::1%eth0]/", ("http", "fe80::1%eth0", 80)),
        ("http://h./", ("http", "h.", 80)),
        ("http://my_host.x--y/", ("http", "my_host.x--y", 80)),
        ("http://B\xdccher.example/", ("http", "xn--bcher-kva.example", 80)),
        ("http://b%C3%BCcher.example/", ("http", "xn--bcher-kva.example", 80)),
        ("http://\uff11\uff12\uff17.0.0.1/", ("http", "127.0.0.1", 80)),
        ("ftp://h/a", ("ftp", "h", 21)),
        ("ftps://h/a", ("ftps", "h", 990)),
        ("socks5h://u:p@h", ("socks5h", "h", 1080)),
        ("http://h:65535?q", ("http", "h", 65535)),
    ],
)
def test_origin(text, origin):
    """The origin has scheme and host in lower case, IDNA names and the default port."""
    url = parse(text)
    assert url.origin == origin
    assert (url.scheme, url.host, url.port) == origin


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("http://h/@", None, None),
        ("http://@h/", None, None),
        ("http://:@h/", None, None),
        ("http://me@h/", "me", None),
        ("http://me:@h/", "me", ""),
        ("http://:pw@h/", "", "pw"),
        ("http://m%40e:p%2Fw%3A:x@h/", "m@e", "p/w::x"),
        ("http://me@x:pw@h/", "me@x", "pw"),
        ("http://D\\me:p w@h/", "D\\me", "p w"),
    ],
)
def test_userinfo(text, user, password):
    """User and password are decoded. The last `@` before the path ends them."""
    url = parse(text)
    assert (url.user, url.password, url.host) == (user, password, "h")


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("#f", "/"),
        ("?", "/?"),
        ("?q#f?", "/?q"),
        ("//a//", "//a//"),
        ("/./a/../b/..", "/./a/../b/.."),
        ("/%2f%7E%C3%A9", "/%2f%7E%C3%A9"),
        ("/100%/a%20b", "/100%25/a%20b"),
        ("/a?rate=5%&name=x%20y", "/a?rate=5%25&name=x%20y"),
        ("/%%41%4", "/%25%41%254"),
        ('/a b|"<>^`{}\\', "/a%20b%7C%22%3C%3E%5E%60%7B%7D%5C"),
        ("/\xe9?\u20ac", "/%C3%A9?%E2%82%AC"),
        ("/a\r\nHost:x\0\x7f", "/a%0D%0AHost:x%00%7F"),
        ("/a;type=i?a[]=1&b=@:/?", "/a;type=i?a[]=1&b=@:/?"),
    ],
)
def test_target(rest, target):
    """The request target encodes only characters that URLs can't contain, without the fragment."""
    for start in ("http://h", "HTTP://h", "ftp://u:p@h:2121"):
        assert parse(start + rest).target == target


@given(st.text(st.sampled_from(STAYS + "?"), max_size=30))
def test_characters_of_a_url_stay(rest):
    """A target made of valid URL characters is sent unchanged."""
    assert parse(f"http://h/{rest}").target == f"/{rest}"


@given(st.text(max_size=30).filter(lambda text: "#" not in text))
def test_encoding_loses_nothing(rest):
    """The request target is ASCII, decodes to the given text and is never encoded twice."""
    target = parse(f"http://h/{rest}").target
    assert re.fullmatch(r"/([A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*", target)
    stray = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", f"/{rest}")
    assert unquote_to_bytes(target) == unquote_to_bytes(stray)
    assert parse(f"http://h{target}").target == target


@given(
    st.sampled_from(sorted(PORTS)),
    st.sampled_from(["h", "a.b-c.example", "::1", "fe80::1%lo", "1.2.3.4"]),
    st.integers(1, 65535),
    st.none() | st.text(min_size=1, max_size=9),
    st.text(st.sampled_from(STAYS + "?"), max_size=9),
)
def test_round_trip(scheme, host, port, user, rest):
    """The text of a parsed URL parses to the same URL without userinfo."""
    place = f"[{host.replace('%', '%25')}]" if ":" in host else host
    userinfo = "" if user is None else f"{quote(user, safe='')}:pw@"
    url = parse(f"{scheme}://{userinfo}{place}:{port}/{rest}")
    assert url.origin == Origin(scheme, host, port)
    assert url[1:4] == (user, user and "pw", f"/{rest}")
    assert parse(url.text) == url._replace(user=None, password=None)


@pytest.mark.parametrize(
    ("text", "authority", "absolute", "whole"),
    [
        ("http://u:p@H:80/a?#f", "h", "http://h/a?", "http://h/a?"),
        ("http://h:443//x", "h:443", "http://h:443//x", "http://h:443//x"),
        (
            "https://[fe80::1%lo]:8443/",
            "[fe80::1]:8443",
            "https://[fe80::1]:8443/",
            "https://[fe80::1%25lo]:8443/",
        ),
    ],
)
def test_forms(text, authority, absolute, whole):
    """The zone of an IPv6 address is not sent in the Host header or to a proxy."""
    url = parse(text)
    assert (url.authority, url.absolute, url.text) == (authority, absolute, whole)


@pytest.mark.parametrize(
    "text",
    [
        f"http://u:p@rt:{SECRET}/x@host/",
        f"http://me:{SECRET}/x@h/",
        f"http://me:{SECRET}?x@h/",
        f"http://me:{SECRET}#x@h/",
        f"http://h:{SECRET}/",
        f"http://[::1]{SECRET}/",
        f"http://[{SECRET}/",
        f"http://{SECRET}@[1::2::3]/",
        f"http://[::1%{SECRET}\xe9]/",
        f"http:/{SECRET}",
        f"http:{SECRET}",
        f"http://{SECRET}\n@h/",
        f"http://{SECRET} x/",
        f"http://{SECRET}\\x/",
        f"http://{SECRET}..x/",
        f"http://.{SECRET}/",
        f"http://*.{SECRET}/",
        f"http://{SECRET * 8}/",
        f"http://{SECRET}%ff/",
        f"http://{SECRET}%2f/",
        f"http://{SECRET}\u2100x/",
        f"http://{SECRET}\xe9\u200b\u0301\u2f00:x/",
        f"http://{SECRET}@h:65536/",
        f"http://{SECRET}@h:0/",
        f"http://{SECRET}@h:00/",
        f"http://{SECRET}@h:100000/",
        f"http://{SECRET}@h:\u0661/",
        f"http://{SECRET}@h:+1/",
        f"http://{SECRET}@/",
        f"http:///{SECRET}",
        f"http://h/\ud800{SECRET}",
        f" http://{SECRET}/",
        f"\0http://{SECRET}/",
        f"ht\ntp://{SECRET}/",
        f"gopher://{SECRET}/",
        f"//{SECRET}/",
        f"{SECRET}",
        "",
    ],
)
def test_refused(text):
    """An invalid or ambiguous URL is refused, and the error shows none of its text."""
    with pytest.raises(ValueError, match=r"scheme|host and port|UTF-8") as caught:
        parse(text)
    assert SECRET.lower() not in str(caught.value).lower()
    assert caught.value.__context__ is None


@pytest.mark.parametrize("text", ["http:/h/", "http:h", "HTTP:"])
def test_slashes_are_missing(text):
    """Where the slashes before the host are missing, the error says so and blames no scheme."""
    with pytest.raises(ValueError, match="host and port"):
        parse(text)


@given(st.text())
def test_any_text(text):
    """Any text gives a URL or a ValueError without a context, which would show the text."""
    error, url = None, None
    try:
        url = parse(f"http://{text}")
    except ValueError as found:
        error = found
    if url is None:
        assert type(error) is ValueError
        assert error.__context__ is None
    else:
        assert re.fullmatch(r"[a-z0-9\-._~!$&'()*+,;=]+|[0-9a-f:.]+(%[\w.~-]+)?", url.host)


@pytest.mark.parametrize("value", [None, b"http://h/", 7, []])
def test_no_text(value):
    """A URL that isn't a str is refused by its type."""
    with pytest.raises(ValueError, match=r"must be a str, not (NoneType|bytes|int|list)"):
        parse(value)


def test_schemes():
    """parse() accepts only the schemes that the caller lists, and its error names them."""
    assert parse("https://h/", ("http", "https")).port == 443
    with pytest.raises(ValueError, match=r"must be http or https, not 'ftp'"):
        parse("ftp://h/", ("http", "https"))
    with pytest.raises(ValueError, match=r"must be ftp, not 'http'"):
        parse("http://h/", ("ftp",))


def test_schemes_that_cannot_be():
    """An invalid list of schemes is reported as an error of the caller, not of the URL."""
    with pytest.raises(TypeError, match="unhashable"):
        parse("http://h/", ["http"])


def test_repr():
    """The repr of a parsed URL shows no secret."""
    shown = repr(parse(f"https://me:{SECRET}@h/a?token={SECRET}"))
    assert shown == "<URL https://h/a?token=***>"


@pytest.mark.parametrize(
    ("reference", "expected"),
    # RFC 3986 section 5.4.
    [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("", "/b/c/d;p?q"),
        ("#s", "/b/c/d;p?q"),
        ("g#s", "/b/c/g"),
        ("g?y#s", "/b/c/g?y"),
        (";x", "/b/c/;x"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../../g", "/g"),
        ("g.", "/b/c/g."),
        ("..g", "/b/c/..g"),
        ("./g/.", "/b/c/g/"),
        ("g/../h", "/b/c/h"),
        ("g?y/../x", "/b/c/g?y/../x"),
        ("g//h", "/b/c/g//h"),
        ("?", "/b/c/d;p?"),
        # These two are exceptions: they are kept unchanged.
        ("/./g/../h", "/./g/../h"),
        ("/g//h", "/g//h"),
        ("/100%/%20", "/100%25/%20"),
    ],
)
def test_join(reference, expected):
    """A relative reference is resolved against a URL; an absolute path is kept unchanged."""
    url = join(parse("http://u:p@a:81/b/c/d;p?q"), reference)
    assert url == parse(f"http://a:81{expected}")
    assert url.target == expected


def test_join_elsewhere():
    """A relative reference may also name another host and scheme."""
    base = parse("https://[fe80::1%lo]/a//b/../c")
    assert join(base, "//h//x/../y").text == "https://h//x/../y"
    assert join(base, "HTTP://H").text == "http://h/"
    assert join(base, "d").text == "https://[fe80::1%25lo]/a//d"
    # Obsolete, but seen (section 5.2.2).
    assert join(base, "HTTPS:/g").text == "https://[fe80::1%25lo]/g"
    assert join(base, "https:d").text == "https://[fe80::1%25lo]/a//d"
    for wrong in ("//:x/", "http:g", "mailto:me"):
        with pytest.raises(ValueError, match=r"host and port|scheme"):
            join(base, wrong, ("http", "https"))
