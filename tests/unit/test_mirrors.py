"""Tests of mirrorlists, and of Metalink documents that are right, wrong, or attack."""

import hashlib
import pickle
from pathlib import Path

import pytest

from pulpcore.plugin.download.futures import (
    DigestValidation,
    Factory,
    FileWriter,
    Metalink,
    Mirrors,
    SizeValidation,
)
from pulpcore.plugin.download.futures.mirrors import LARGEST

DIGEST = hashlib.sha256(b"x").hexdigest()
MD5 = hashlib.md5(b"x").hexdigest()

VERSION_4 = f"""<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink" xmlns:o="urn:other">
 <published>2026-01-01T00:00:00Z</published>
 <file name="sub/a.iso">
  <size>1</size>
  <o:size>9</o:size>
  <hash type="sha-256">{DIGEST}</hash>
  <hash type="md5">{MD5}</hash>
  <hash type="shake-9">00</hash>
  <pieces length="1" type="sha-1"><hash>00</hash></pieces>
  <url>http://last.example/a.iso</url>
  <url location="de" priority="2">
    https://second.example/a.iso
  </url>
  <url location="fr" priority="1">http://first.example/a.iso</url>
  <url priority="1">ftp://ftp.example/a.iso</url>
 </file>
 <file name="b.iso"><url>ftp://ftp.example/b.iso</url></file>
</metalink>"""

VERSION_3 = f"""<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic"
  xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
   <mm0:timestamp>1730000000</mm0:timestamp>
   <size>1</size>
   <verification>
    <hash type="md5">{MD5}</hash>
    <hash type="sha256">{DIGEST}</hash>
   </verification>
   <mm0:alternates><mm0:alternate>
     <mm0:size>7</mm0:size>
     <verification><hash type="sha256">{"0" * 64}</hash></verification>
   </mm0:alternate></mm0:alternates>
   <resources maxconnections="1">
    <url protocol="rsync" type="rsync" location="US" preference="100">rsync://r.example/r</url>
    <url protocol="http" type="http" location="US" preference="99">http://us.example/r</url>
    <url protocol="https" type="https" location="DE" preference="100">https://de.example/r</url>
   </resources>
  </file>
 </files>
</metalink>"""


def version_4(content: str) -> str:
    """Make a document of version 4 with one file."""
    return (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a">'
        f"<url>http://h.example/a</url>{content}</file></metalink>"
    )


class TestMirrors:
    def test_parse(self, caplog):
        """A mirrorlist has a URL a line; comments are left out, and other lines with a warning."""
        text = "# list\n\n http://a.example/x/ \nftp://b.example/s3cret\nhttps://c.example\nhttp://d/?q"
        text += "\nhttp://d/#f"
        mirrors = Mirrors.parse(text)
        assert mirrors.bases == ("http://a.example/x/", "https://c.example")
        assert [record.args for record in caplog.records] == [(4,), (6,), (7,)]
        assert "s3cret" not in caplog.text

    @pytest.mark.parametrize("text", ["", "# http://h/\n", "no such release\n"])
    def test_no_url(self, text):
        """A mirrorlist without an http URL is refused."""
        with pytest.raises(ValueError, match="no http URL"):
            Mirrors.parse(text)

    @pytest.mark.parametrize(
        "bases",
        [[], ["ftp://h/"], ["http://h/", "x"], ["http://h/?q=s3cret"], ["http://h/#s3cret"]],
    )
    def test_wrong_bases(self, bases):
        """Bases that can't be used are refused, without their text."""
        with pytest.raises(ValueError, match=r"^mirrors: ") as caught:
            Mirrors(bases)
        assert "s3cret" not in str(caught.value)

    def test_urls(self):
        """A path is joined to each base by one slash, in the order of the bases at first."""
        mirrors = Mirrors(["http://a/x/", "http://b"])
        assert mirrors.urls("p/f%20g") == ["http://a/x/p/f%20g", "http://b/p/f%20g"]
        assert mirrors.url("p") == "http://a/x/p"

    @pytest.mark.parametrize(
        "path", ["/a", "..", "../a", "a/../b", "a/..", "%2e%2e/a", "a%2F..%2Fb", "..\\a", "%2fa"]
    )
    def test_wrong_path(self, path):
        """A path that leads out of the tree is refused."""
        for method in (Mirrors(["http://a/x"]).urls, Mirrors(["http://a/x"]).url):
            with pytest.raises(ValueError, match="must be relative"):
                method(path)

    def test_learns(self):
        """What is known of each base decides on the order."""
        mirrors = Mirrors(["http://a", "http://b"])
        slow, fast = mirrors.urls("f")
        for _ in range(3):
            slow.site.succeeded(1000, 10.0)
            fast.site.succeeded(1000, 0.1)
        firsts = [mirrors.urls("f")[0] for _ in range(200)]
        assert firsts.count("http://b/f") > 150
        assert pickle.loads(pickle.dumps(firsts[0])) == firsts[0]

    def test_text(self):
        """The repr of mirrors shows no secret of a base."""
        assert repr(Mirrors(["http://me:s3cret@a/x"])) == "<Mirrors http://a/x>"


class TestFactory:
    @pytest.mark.parametrize(
        "given", [["http://a/x", "http://b"], Mirrors(["http://a/x", "http://b"])]
    )
    def test_relative(self, given, tmp_path):
        """A relative URL is that of a file of the mirrors; the first base as listed is its URL."""
        factory = Factory(mirrors=given)
        factory.mirrors.urls("")[0].site.failed(9.0)
        download = factory.build("p/f.rpm", tmp_path / "f")
        assert download.url == "http://a/x/p/f.rpm"
        assert list(download.mirrors) == ["http://b/p/f.rpm", "http://a/x/p/f.rpm"]
        assert download.clone().mirrors == download.mirrors

    def test_absolute(self, tmp_path):
        """Any other URL has no mirrors."""
        factory = Factory(mirrors=["http://a/x"])
        assert factory.build("http://c/f", tmp_path / "f").mirrors == ()
        with pytest.raises(ValueError, match="no download serves"):
            factory.build("gopher://c/f", tmp_path / "f")

    def test_none(self, tmp_path):
        """Without mirrors a relative URL is refused."""
        with pytest.raises(ValueError, match="no download serves"):
            Factory().build("p/f", tmp_path / "f")


class TestMetalink:
    def test_version_4(self):
        """A document of RFC 5854 is read, without its pieces and without other namespaces."""
        first, second = Metalink.parse(VERSION_4).files
        assert (first.name, first.size) == ("sub/a.iso", 1)
        assert first.digests == {"sha256": DIGEST, "md5": MD5}
        assert first.urls == [
            ("http://first.example/a.iso", 1, "fr"),
            ("https://second.example/a.iso", 2, "de"),
            ("http://last.example/a.iso", 999999, None),
        ]
        assert second.urls == []

    def test_version_3(self):
        """A document of Fedora's is read, without the digests of older versions."""
        [file] = Metalink.parse(VERSION_3.encode()).files
        assert (file.name, file.size) == ("repomd.xml", 1)
        assert file.digests == {"sha256": DIGEST, "md5": MD5}
        assert file.urls == [("https://de.example/r", 1, "DE"), ("http://us.example/r", 2, "US")]

    def test_download(self, tmp_path):
        """A file makes a download with mirrors, its size and its strongest digest."""
        download = Metalink.parse(VERSION_4).files[0].download(tmp_path)
        assert download.url == "http://first.example/a.iso"
        assert len(download.mirrors) == 2
        assert download.writer.path == str(tmp_path / "sub/a.iso")
        size, digest = download.validations
        assert isinstance(size, SizeValidation)
        assert isinstance(digest, DigestValidation)
        assert (size.expected, digest.expected) == (1, DIGEST)

    def test_bare_download(self, tmp_path):
        """A file of which only the URL is known has no validations."""
        download = Metalink.parse(version_4("")).files[0].download(str(tmp_path))
        assert isinstance(download.writer, FileWriter)
        assert (download.validations, download.mirrors) == ([], ())

    def test_no_download(self, tmp_path):
        """A file without an http URL, or behind a link that leads away, can't be downloaded."""
        first, second = Metalink.parse(VERSION_4).files
        with pytest.raises(ValueError, match="no http URL"):
            second.download(tmp_path)
        (tmp_path / "sub").symlink_to("/")
        with pytest.raises(ValueError, match="a link"):
            first.download(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [
            *[
                "",
                ".",
                "..",
                "/etc/passwd",
                "../a",
                "a/../../b",
                "a//b",
                "a/",
                "a\\b",
                "C:a",
                "a&#10;b",
            ],
            ".download-0123456789abcdef.note",
            "a/.download-0123456789abcdef.partial",
        ],
    )
    @pytest.mark.parametrize("document", [VERSION_3, VERSION_4])
    def test_name(self, name, document):
        """A name that leads out of the folder is refused, and one that a staging file may have."""
        for known in ("repomd.xml", "sub/a.iso"):
            document = document.replace(f'name="{known}"', f'name="{name}"')
        with pytest.raises(ValueError, match="the name of a file"):
            Metalink.parse(document)

    @pytest.mark.parametrize(
        "dtd",
        [
            "<!DOCTYPE metalink>",
            '<!DOCTYPE metalink SYSTEM "http://127.0.0.1:1/x.dtd">',
            '<!DOCTYPE metalink [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
            '<!DOCTYPE metalink [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE metalink [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>',
        ],
    )
    def test_dtd(self, dtd):
        """A DTD is refused, and with it every entity."""
        with pytest.raises(ValueError, match="has a DTD"):
            Metalink.parse(dtd + version_4("<size>1</size>"))

    @pytest.mark.parametrize(
        ("document", "reason"),
        [
            ("", "not well-formed"),
            ("<metalink", "not well-formed"),
            ("\ud83d".encode("utf-16-le", "surrogatepass"), "not well-formed"),
            (version_4("&a;"), "not well-formed"),
            (version_4("")[:-3], "not well-formed"),
            (version_4("") + "<x/>", "not well-formed"),
            ("<html/>", "no Metalink"),
            ("<metalink/>", "no Metalink"),
            ('<metalink xmlns="urn:ietf:params:xml:ns:metalink"/>', "no http URL"),
            (version_4("").replace("http:", "ftp:"), "no http URL"),
            (version_4("").replace("http://h.example/a", ""), "no http URL"),
            (version_4("<size>-1</size>"), "a size that"),
            (version_4("<size>1e9</size>"), "a size that"),
            (version_4(f"<size>{'9' * 5000}</size>"), "a size that"),
            (version_4('<url priority="x">http://h.example/</url>'), "a priority that"),
            (version_4('<hash type="sha-256">zz</hash>'), "sha256"),
            (
                version_4(f'<hash type="md5">{MD5}</hash><hash type="md5">{"0" * 32}</hash>'),
                "two different",
            ),
            (VERSION_3.replace('preference="99"', 'preference="s3cret"'), "a preference that"),
        ],
    )
    def test_wrong(self, document, reason):
        """A document that can't be read or trusted is refused, and its text isn't shown."""
        with pytest.raises(ValueError, match=reason) as caught:
            Metalink.parse(document)
        assert "s3cret" not in str(caught.value)

    def test_size(self):
        """A document of up to 10 MiB is read, deep or long, and a larger one is refused."""
        filling = LARGEST - len(version_4(""))
        assert Metalink.parse(version_4(" " * filling)).files
        with pytest.raises(ValueError, match="more than"):
            Metalink.parse(version_4(" " * (filling + 1)))
        deep = version_4("<a>" * 300_000 + "</a>" * 300_000)
        assert Metalink.parse(deep).files
        # To sort the URLs at each of them would take a minute.
        many = version_4("<url>http://h/b</url>" * 50_000)
        assert len(Metalink.parse(many).files[0].urls) > 50_000

    def test_text(self):
        """No message and no repr shows a secret of a document's URL."""
        document = version_4("").replace("http://h", "http://me:s3cret@h")
        assert "s3cret" not in repr(Metalink.parse(document))

    def test_folder(self):
        """The folder of a download may be relative."""
        download = Metalink.parse(version_4("")).files[0].download("x")
        assert Path(download.writer.path).parent.name == "x"
