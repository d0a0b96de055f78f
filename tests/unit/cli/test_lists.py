"""Tests of lists: what is read quickly is read as all else is, line by line."""

import io
import re

import pytest

from pulpcore.plugin.download.futures.cli import lists
from pulpcore.plugin.download.futures.cli.entries import Entry
from pulpcore.plugin.download.futures.cli.manifest import Refused

SHA256 = "ab" * 32


def read(text):
    """Read a list, with errors as texts."""
    found = lists.read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "list")
    return [str(item) if isinstance(item, Refused) else item for item in found]


USUAL = f"""\
http://h/a/b-1_2.deb
  out=c/d
  size=007
  checksum=sha-256={SHA256}
http://h:8/e
https://h/f
\tsize=1
 size=2
 out=g.h
http://h/%2e/i%20j%3a1.deb\thttps://i-1.k:45678/%41/l\thttp://i/
 dir=m/n
http://h/a%2Fb
http://h/%ff
 out=o
http://h/c\thttp://i:0/d
http://h/e%0af
 dir=p
"""


def test_usual(monkeypatch):
    """The fast path and the full parser read entries alike."""
    found = read(USUAL)
    monkeypatch.setattr(lists, "_USUAL", re.compile("(?!)"))
    assert found == read(USUAL)
    assert found == [
        Entry("http://h/a/b-1_2.deb", "c/d", {"size": 7, "sha256": SHA256}),
        Entry("http://h:8/e", "e"),
        Entry("https://h/f", "g.h", {"size": 2}),
        Entry(
            "http://h/%2e/i%20j%3a1.deb",
            "m/n/i j:1.deb",
            mirrors=("https://i-1.k:45678/%41/l", "http://i/"),
        ),
        *found[4:5],
        Entry("http://h/%ff", "o"),
        *found[6:],
    ]
    assert [each.partition(": ")[0] for each in (found[4], *found[6:])] == [
        f"line {number} of list" for number in (12, 15, 16)
    ]


@pytest.mark.parametrize("text", [USUAL, USUAL.replace("http:", "http:%20")])
def test_work_is_linear(monkeypatch, text):
    """Each line is read once, and each entry is matched once: a list may have a million."""
    work = []

    class File(io.BytesIO):
        def readline(self, size=-1):
            work.append("line")
            return super().readline(size)

    class Pattern:
        def fullmatch(self, text):
            work.append("entry")
            return usual.fullmatch(text)

    usual = lists._USUAL
    monkeypatch.setattr(lists, "_USUAL", Pattern())
    for times in 1, 100:
        work.clear()
        list(lists.read(File(text.encode() * times), "list"))
        assert work.count("line") == 17 * times + 1
        assert work.count("entry") == 8 * times


def test_sources():
    """Tabs separate several sources of one file. Each source may have a digest."""
    text = f"http://h/a \t https://i/b#sha256={SHA256}\t\n\n# more\n\t\n  out=c\n"
    assert read(text) == [Entry("http://h/a", "c", {"sha256": SHA256}, ("https://i/b",))]


def test_byte_order_mark():
    """A list that an editor began with a byte order mark is read."""
    assert read(b"\xef\xbb\xbfhttp://h/a\r\n") == [Entry("http://h/a", "a")]


def test_bytes_of_another_encoding():
    """A URL that isn't UTF-8 is refused, and the message says what is wrong."""
    (found,) = read(b"http://h/caf\xe9\n")
    assert "the URL is not valid: it has bytes that are no UTF-8: percent-encode them" in found


def test_long_line():
    """A line that is too long counts as one, so the numbers of later lines are right."""
    text = f"http://h/{'a' * 200_000}\nhttp://h/b\n x=1\n"
    first, second = read(text)
    assert first == "line 1 of list: it is too long"
    assert second.startswith("line 3 of list: no option of")


def test_many_lines():
    """An entry with too many lines is refused, and isn't held in memory."""
    found = read("http://h/a\n" + " size=1\n" * 5000 + "http://h/b\n")
    assert found == ["line 1 of list: it has more than 100 lines", Entry("http://h/b", "b")]
