"""Tests of parsing a PULP_MANIFEST and of locating its files."""

import os
import tracemalloc
from pathlib import Path

import pytest

from pulpcore.plugin.download.futures.cli import manifest
from pulpcore.plugin.download.futures.cli.manifest import (
    BadLine,
    Destination,
    Entry,
    Refused,
    Unusable,
)

SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
OTHER = "0" * 64
URL = "https://example.org/repo/PULP_MANIFEST"


def parse(text):
    """Parse a manifest given as text."""
    return list(manifest.parse(text.encode()))


def test_lines():
    """The parser splits each line from the right into path, digest and size.

    Blank lines are skipped but counted.
    """
    assert parse(f"a/b.iso,{SHA256},0\n\n \nc,d,{SHA256.upper()},12\n") == [
        Entry(1, "a/b.iso", SHA256, 0),
        Entry(4, "c,d", SHA256, 12),
    ]


def test_forms():
    """The parser accepts a byte order mark, CR LF, spaces around fields and no final line end."""
    assert parse(f"\ufeffa,{SHA256},1\r\n \tb c , {SHA256} , 2 ") == [
        Entry(1, "a", SHA256, 1),
        Entry(2, "b c", SHA256, 2),
    ]


def test_comments():
    """The parser skips lines that begin with `#`, also after spaces, but counts them."""
    assert parse(f"# made by a tool\n  #a,{SHA256},1\nb,{SHA256},1") == [Entry(3, "b", SHA256, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html>\n" + "<p>a, b, c</p>\n" * 3000,
        "\n\n{}",
        "http://me:s3cret@h/?token=s3cret",
    ],
)
def test_not_a_manifest(text):
    """A text without any manifest line is refused as a whole. The error shows no secret of it."""
    with pytest.raises(
        Unusable, match=r"this is no manifest: line \d .*is its URL right"
    ) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_only_refused_paths():
    """If the parser refuses every path of a manifest, it reports each line by its number."""
    assert [type(item) for item in parse(f"../a,{SHA256},1\n/b,{SHA256},1")] == [BadLine, BadLine]


def test_empty():
    """An empty manifest is valid and lists no files."""
    assert parse("") == []


def test_line_separators_of_unicode():
    """Only a line feed ends a manifest line, so paths may contain Unicode line separators."""
    assert parse(f"a\u2028b\x0cc,{SHA256},1") == [Entry(1, "a\u2028b\x0cc", SHA256, 1)]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "a,b,c",
        f"a,{SHA256}",
        f"a,{SHA256},",
        f"a,{SHA256},-1",
        f"a,{SHA256},1.5",
        f"a,{SHA256},1_0",
        f"a,{SHA256},٣",
        f"a,{SHA256},{'9' * 5000}",
        f"a,{SHA256[:-1]},1",
        f"a,{SHA256[:-1]}g,1",
        "<!DOCTYPE html>" + "x" * 200,
    ],
)
def test_bad_line(line):
    """An invalid line is reported by number and shortened, and the other lines are still read."""
    bad, good = parse(f"{line}\nb,{SHA256},1")
    assert good == Entry(2, "b", SHA256, 1)
    assert isinstance(bad, BadLine)
    assert bad.path is None
    assert str(bad).startswith("line 1 of the manifest: not path,sha256,size: ")
    assert len(str(bad)) < 150


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("//host/a", "absolute"),
        ("C:/a", "absolute"),
        ("c:a", "absolute"),
        ("..", "'..'"),
        ("../a", "'..'"),
        ("a/../../b", "'..'"),
        ("a/..", "'..'"),
        ("a\\b", "backslash"),
        ("..\\a", "backslash"),
        ("a\0b", "NUL"),
        ("", "names no file"),
        (".", "names no file"),
        ("a/", "names no file"),
        ("a/.", "names no file"),
        ("http://h/a", "URL"),
        ("file:/a", "URL"),
        (".download-0123456789abcdef", "temporary files"),
        ("a/.download-0123456789abcdef.note", "temporary files"),
        (".download-0123456789abcdef.partial/a", "temporary files"),
        ("a" * 256, "too long"),
        ("a/" + "é" * 128 + "/b", "too long"),
        ("/".join(["a" * 200] * 21), "too long"),
        ("a/" * 100 + "b", "too long"),
        ("./" * 100_000 + "b", "too long"),
    ],
)
def test_refused_path(path, why):
    """A path that could leave the destination, or names no file, is refused with a reason."""
    bad, good = parse(f"{path},{SHA256},1\nb,{SHA256},1")
    assert good == Entry(2, "b", SHA256, 1)
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.path) == (1, path)
    assert why in bad.reason


@pytest.mark.parametrize(
    "path",
    ["a" * 255, "a/" * 99 + "b", "/".join(["a" * 200] * 20 + ["b" * 75])],
    ids=["name", "depth", "length"],
)
def test_longest_path(path):
    """A name of 255 bytes, a path of 100 parts and one of 4095 bytes are accepted."""
    assert parse(f"{path},{SHA256},1") == [Entry(1, path, SHA256, 1)]


def test_means_nothing():
    """The parser removes `.` and empty parts from a path, so that each file has one path."""
    assert parse(f"./a//b/./c,{SHA256},1\na/b/c,{SHA256},1") == [Entry(1, "a/b/c", SHA256, 1)]


def test_odd_names():
    """File names with dots, colons and spaces are accepted."""
    paths = ["..a", "a..b/...", "a b", "ab:c", "-", "~", "%2e%2e/a", "a#b"]
    found = parse("\n".join(f"{path},{SHA256},1" for path in paths))
    assert [item.path for item in found] == paths


def test_repeated():
    """The parser accepts an identical repeated line and lists the file once."""
    assert parse(f"a,{SHA256},1\na,{SHA256.upper()},1") == [Entry(1, "a", SHA256, 1)]


@pytest.mark.parametrize("second", [f"a,{SHA256},2", f"a,{OTHER},1", f"./a,{OTHER},1"])
def test_contradiction(second):
    """If a path is listed twice with different content, the second line is an error.

    The first one counts.
    """
    first, bad = parse(f"a,{SHA256},1\n{second}")
    assert first == Entry(1, "a", SHA256, 1)
    assert "than in line 1" in str(bad)


def test_file_and_folder():
    """A path that is a file in one line and a folder in another is refused."""
    first, bad, deep, also_bad = parse(
        f"a,{SHA256},1\na/b/c,{SHA256},1\nd/e/f,{SHA256},1\nd/e,{SHA256},1"
    )
    assert (first.path, deep.path) == ("a", "d/e/f")
    assert str(bad) == "line 2 of the manifest: 'a' in the path is a file in line 1"
    assert str(also_bad) == "line 4 of the manifest: the path is that of a folder in line 3"


def test_many_levels():
    """Checking paths with many folders for conflicts needs no memory for each of the folders."""
    text = "".join(f"{number}/{'a/' * 98}f,{SHA256},1\n" for number in range(2000))
    tracemalloc.start()
    try:
        found = parse(text)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(isinstance(entry, Entry) for entry in found)
    # Storing the prefix of each level would take 30 MB.
    assert most < 8 * 2**20


def test_encoding_of_the_file_system(monkeypatch):
    """A path that the encoding of the file system can't represent is refused."""
    monkeypatch.setattr("os.fsencode", lambda path: path.encode("ascii", "strict"))
    bad, good = parse(f"é/a,{SHA256},1\nb,{SHA256},1")
    assert "can't be encoded" in str(bad)
    assert good.path == "b"


@pytest.mark.parametrize("line", ["http://me:s3cret@h/a?b=s3cret", "//me:s3cret@h/a,1,2"])
def test_excerpt_shows_no_secret(line):
    """An error about a line that contains a URL redacts the URL."""
    bad, _ = parse(f"{line}\nb,{SHA256},1")
    assert "s3cret" not in str(bad)


def test_conflicts_of_what_was_refused():
    """A refused line doesn't conflict with later lines."""
    found = parse(
        "\n".join(f"{path},{SHA256},1" for path in ("x/y", "x", "x/z", "x/y/1", "x/y/1/2"))
    )
    assert [type(item).__name__ for item in found] == [
        *("Entry", "BadLine", "Entry", "BadLine", "BadLine")
    ]
    assert [item.line for item in found] == [1, 2, 3, 4, 5]


def test_no_text():
    """Content that isn't UTF-8 is refused as a manifest."""
    with pytest.raises(Unusable, match=r"byte 2.*is its URL right"):
        list(manifest.parse(b"a,\xff"))


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("a/b.iso", "https://example.org/repo/a/b.iso"),
        ("a b", "https://example.org/repo/a%20b"),
        ("a?b#c", "https://example.org/repo/a%3Fb%23c"),
        ("100%25", "https://example.org/repo/100%2525"),
        ("http:b", "https://example.org/repo/http%3Ab"),
        ("é", "https://example.org/repo/%C3%A9"),
        ("...", "https://example.org/repo/..."),
    ],
)
def test_url(path, url):
    """A file's URL is relative to the manifest's URL and keeps every character of the file name."""
    assert Entry(1, path, SHA256, 1).url(URL) == url


@pytest.mark.parametrize(
    ("manifest_url", "url"),
    [
        (URL + "?token=x#part", "https://example.org/repo/a?token=x"),
        (URL + "?path=/x/y", "https://example.org/repo/a?path=/x/y"),
        (URL + "?", "https://example.org/repo/a?"),
        ("https://example.org", "https://example.org/a"),
        ("https://example.org?x", "https://example.org/a?x"),
        ("https://example.org//b/../c%2f/PULP_MANIFEST", "https://example.org//b/../c%2f/a"),
    ],
)
def test_url_beside_the_manifest(manifest_url, url):
    """A file's URL keeps the folder and the query of the manifest's URL and drops its fragment."""
    assert Entry(1, "a", SHA256, 1).url(manifest_url) == url


def test_locate(tmp_path):
    """A file is placed below the destination, whether its folders exist or not."""
    (tmp_path / "there").mkdir()
    assert Destination(tmp_path).locate("there/a") == tmp_path / "there/a"
    assert Destination(tmp_path).locate("new/b/c") == tmp_path / "new/b/c"


@pytest.mark.parametrize("path", ["out/a", "file", "gone", "up", "here"])
def test_link_out(tmp_path, path):
    """A symbolic link that leads out of the destination is refused, even if it is broken."""
    destination = tmp_path / "destination"
    destination.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("old")
    (destination / "out").symlink_to(tmp_path / "elsewhere")
    (destination / "file").symlink_to(tmp_path / "elsewhere/file")
    (destination / "gone").symlink_to("../nowhere")
    (destination / "up").symlink_to("..")
    (destination / "here").symlink_to(".")
    with pytest.raises(Refused, match="link"):
        Destination(destination).locate(path)


def test_link_in(tmp_path):
    """A symbolic link within the destination is followed. The destination may itself be a link."""
    (tmp_path / "real/folder").mkdir(parents=True)
    (tmp_path / "real/inside").symlink_to("folder")
    (tmp_path / "link").symlink_to("real")
    destination = tmp_path / "link"
    assert Destination(destination).locate("inside/a") == destination / "inside/a"


def test_sibling(tmp_path):
    """A folder whose name begins with the destination's name is outside of the destination."""
    (tmp_path / "d").mkdir()
    (tmp_path / "dd").mkdir()
    (tmp_path / "d/l").symlink_to("../dd")
    with pytest.raises(Refused):
        Destination(tmp_path / "d").locate("l/a")


def test_root():
    """The root of the file system may be the destination."""
    assert os.fspath(Destination(Path("/")).locate("no-such-folder/a")) == "/no-such-folder/a"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/repos/my%20files/PULP_MANIFEST", "example.org-repos-my-20files"),
        ("http://user:secret@example.org:8080/PULP_MANIFEST?token=x", "example.org-8080"),
        ("file:///srv/repo/PULP_MANIFEST", "srv-repo"),
        ("http://[::1]:80/a/../../PULP_MANIFEST", "1-80-a"),
        ("file:///PULP_MANIFEST", "pulp-futures-sync"),
        ("https://example.org", "example.org"),
        ("https://example.org?token=s3cret", "example.org"),
        ("http://me:s3/cret@example.org/PULP_MANIFEST", "example.org"),
        ("http://me:p@rt:s3cret/x@example.org/a/PULP_MANIFEST", "example.org-a"),
        ("http://example.org:s3cret/PULP_MANIFEST", "pulp-futures-sync"),
        ("http://[::1/PULP_MANIFEST", "pulp-futures-sync"),
        ("", "pulp-futures-sync"),
    ],
)
def test_folder_for(url, name):
    """The default folder is named after the repository, without credentials, query or `..`."""
    assert manifest.folder_for(url) == name
