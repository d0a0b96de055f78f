"""Tests of lists in aria2's form, of URLs with a digest, and of checksums."""

import io

import pytest

from pulpcore.plugin.download.futures.cli.checksums import Checksums
from pulpcore.plugin.download.futures.cli.entries import Entry, entry_of
from pulpcore.plugin.download.futures.cli.lists import read
from pulpcore.plugin.download.futures.cli.manifest import Refused

SHA256 = "ab" * 32
MD5 = "cd" * 16


def entries(text):
    """Read a list, with errors as texts."""
    found = read(io.BytesIO(text.encode()), "list")
    return [str(item) if isinstance(item, Refused) else item for item in found]


def test_list():
    """Options belong to the URL above them; comments, blank lines and line ends are skipped."""
    text = (
        f"# list\n\nhttp://h/a\r\nhttp://h/b%20c?x=1\n  out=d/e\n\tsize=7\n  dir=./f\n"
        f"  checksum=SHA-256={SHA256.upper()}\n# more\nftp://h/g;type=i"
    )
    assert entries(text) == [
        Entry("http://h/a", "a", {}),
        Entry("http://h/b%20c?x=1", "f/d/e", {"size": 7, "sha256": SHA256}),
        Entry("ftp://h/g;type=i", "g", {}),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (" out=a\n", "line 1 of list: an option stands above the first URL"),
        ("http://h/a\n foo=1\n", "line 2 of list: no option of checksum, dir, out, size: 'foo=1'"),
        ("http://h/a\n foo\n bar\n", "line 2 of list: no option of checksum"),
        ("http://h/a\n out=../b\n", "line 1 of list: the path has a '..'"),
        ("http://h/a\n out=/b\n", "line 1 of list: the path is absolute"),
        ("http://h/a\n dir=..\n", "line 1 of list: the path has a '..'"),
        ("http://h/a\n size=1x\n", "line 1 of list: size=1x is no number of bytes"),
        ("http://h/a\n checksum=sha-256=0\n", "line 1 of list: a sha256 digest is 64"),
        ("http://h/a\n checksum=foo=0\n", "line 1 of list: unknown digest algorithm"),
        ("a.iso\n", "line 1 of list: no URL of http, https, ftp, ftps or file: 'a.iso'"),
        ("http://h/\n", "line 1 of list: no name of a file can be taken from the URL"),
        ("http://[::1/a\n", "line 1 of list: 'http://***': the URL is not valid: check its host"),
        ("http://h:99999/a\n", "line 1 of list: 'http://h:99999/a': the URL is not valid"),
        ("ftp://u:p@a..b/a\n", "line 1 of list: 'ftp://a..b/a': the URL is not valid"),
        ("http://h/a\thttp://h:0/a\n", "line 1 of list: 'http://h:0/a': the URL is not valid"),
        ("http://h/" + "a" * 70_000, "line 1 of list: it is too long"),
        (
            f"http://h/a#sha256={SHA256}\n checksum=sha-256={'00' * 32}\n",
            "line 1 of list: the URL has another sha256 digest",
        ),
    ],
)
def test_bad_lines(text, problem):
    """An invalid line is reported by its number, and the entries after it are read."""
    *found, last = entries(text.rstrip("\n") + "\nhttp://h/z\n")
    assert found[0].startswith(problem)
    assert last == Entry("http://h/z", "z", {})


def test_secrets():
    """The message about a bad line shows no secret."""
    for text in "http://h/a\n x=http://me:s3cret@h/\n", "gopher://me:s3cret@h/a?t=s3cret\n":
        assert "s3cret" not in entries(text)[0]


def test_fragment():
    """A URL may end in a digest; another fragment stays."""
    assert entry_of(f"http://h/a#SHA256={SHA256}").expected == {"sha256": SHA256}
    assert entry_of("http://h/a#part=1") == Entry("http://h/a#part=1", "a", {})
    with pytest.raises(Refused, match="64 hex digits"):
        entry_of("http://h/a#sha256=0")


class TestChecksums:
    def test_forms(self):
        """Lines of sha256sum, md5sum and BSD are read, escaped names too."""
        lines = [
            "# made by hand\n",
            "\n",
            f"{SHA256}  ./a\n",
            f"{MD5} *d/b c\r\n",
            f"SHA256 (e) = {SHA256.upper()}\n",
            f"\\{SHA256}  f\\\\\\ng\n",
        ]
        checksums = Checksums(lines)
        assert checksums.find("a") == ("sha256", SHA256)
        assert checksums.find("b c") == ("md5", MD5)
        assert checksums.find("x/e") == ("sha256", SHA256)
        assert checksums.find("f\\\ng") == ("sha256", SHA256)

    def test_not_listed(self):
        """A name that isn't listed, or is that of two different files, has no digest."""
        checksums = Checksums([f"{SHA256}  x/a", f"{MD5}  y/a"])
        assert checksums.find("y/a") == ("md5", MD5)
        for name in "a", "b":
            with pytest.raises(Refused, match="the file of --checksums has no line for it"):
                checksums.find(name)

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("nonsense", "line 2 is no checksum"),
            (f"{SHA256}0  b", "line 2: unknown digest algorithm"),
            (f"FOO (b) = {SHA256}", "line 2: unknown digest algorithm"),
            (f"{'00' * 32}  a", "line 2: 'a' has another digest above"),
        ],
    )
    def test_bad_line(self, line, problem):
        """An invalid line of a checksum file is reported by its number."""
        with pytest.raises(Refused, match=problem):
            Checksums([f"{SHA256}  a", line])
