"""Tests of the factory: how it uses attributes of importers and remotes, and names files."""

import hashlib
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from pulpcore.plugin.download.futures import (
    SSL,
    DigestValidation,
    DownloadFailed,
    Factory,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    SizeValidation,
    Timeout,
    User,
    ValidationError,
)

URL = "https://example.test/pub/file.rpm"
EMPTY = SimpleNamespace()
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


class FileField:
    """Like Django's FileField: it has a name and is false if that is empty."""

    def __init__(self, name):
        self.name = name

    def __bool__(self):
        return bool(self.name)


class Importer:
    """An importer of 2017, with defaults for what a test doesn't set."""

    ssl_ca_certificate = FileField("")
    ssl_client_certificate = FileField("")
    ssl_client_key = FileField(None)
    ssl_validation = True
    proxy_url = ""
    username = ""
    password = ""
    validate = True

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Remote:
    """A remote whose fields are None unless they are set."""

    ca_cert = client_cert = client_key = None
    tls_validation = True
    proxy_url = proxy_username = proxy_password = None
    username = password = headers = None
    connect_timeout = sock_connect_timeout = sock_read_timeout = None

    def __init__(self, **attributes):
        vars(self).update(attributes)


def build(importer=EMPTY, url=URL, path="file", artifact=None):
    """Build a download."""
    return Factory(importer).build(url, path, artifact)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://h/a", HttpDownload),
        ("https://h/a", HttpDownload),
        ("HTTPS://h/a", HttpDownload),
        ("ftp://h/a", FtpDownload),
        ("FTPS://h/a", FtpDownload),
        ("file:///a", FileDownload),
        ("File:///a", FileDownload),
    ],
)
@pytest.mark.parametrize("importer", [EMPTY, Importer(), Remote(), None])
def test_scheme(url, kind, importer):
    """The factory chooses the download class by scheme, in any case, and keeps the URL."""
    download = build(importer, url)
    assert type(download) is kind
    assert download.url == url
    assert isinstance(download.writer, FileWriter)
    assert download.writer.path == "file"
    assert download.validations == []


@pytest.mark.parametrize(
    "url", ["gopher://h/a", "", "a", "/a/b", "://h/a", "sftp://h/a", "http//h/a", "ht tp://h/a"]
)
@pytest.mark.parametrize("path", [None, "file"])
def test_scheme_that_nobody_serves(url, path):
    """The factory raises ValueError for a missing or unknown URL scheme."""
    with pytest.raises(ValueError, match="scheme"):
        build(url=url, path=path)


@pytest.mark.parametrize("path", [None, "file"])
@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://[::1/file", HttpDownload),
        ("https://me:s3cret@[h/file?key=s3cret", HttpDownload),
        ("http://h:s3cret/file", HttpDownload),
        ("http:///file", HttpDownload),
        ("ftp://[::1/file", FtpDownload),
        ("ftp://me:s3cret@h:port/file", FtpDownload),
        ("file://[::1/file", FileDownload),
        ("file://elsewhere/file", FileDownload),
    ],
)
def test_url_that_is_not_valid(url, kind, path, tmp_path, monkeypatch):
    """The factory builds a download for a malformed URL, which fails when it is run."""
    monkeypatch.chdir(tmp_path)
    download = build(url=url, path=path)
    assert type(download) is kind
    assert download.url == url
    assert Path(download.writer.path).name == "file"
    with pytest.raises(DownloadFailed) as caught:
        download()
    assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["\n http://h/a", "ht\ntp://h/a", "http://h/\ta"])
def test_url_with_white_space(url):
    """The factory accepts white space in a URL that urllib.parse ignores."""
    assert build(url=url, path=None).writer.path == str(Path.cwd() / "a")


class TestForms:
    """Factory(importer).build(url, …) and Factory.build(url, importer, …)."""

    ARTIFACT = SimpleNamespace(size=3)

    @pytest.mark.parametrize(
        "call",
        [
            lambda i, a: Factory(i).build(URL, "p", a),
            lambda i, a: Factory(i).build(URL, path="p", artifact=a),
            lambda i, a: Factory(importer=i).build(url=URL, path="p", artifact=a),
            lambda i, a: Factory.build(URL, i, "p", a),
            lambda i, a: Factory.build(URL, i, path="p", artifact=a),
            lambda i, a: Factory.build(url=URL, importer=i, path="p", artifact=a),
        ],
    )
    def test_same(self, call):
        """Both forms of Factory.build() build the same download, by position or by name."""
        download = call(Importer(username="u", password="p"), self.ARTIFACT)
        assert (download.url, download.writer.path) == (URL, "p")
        assert download.user == User("u", "p")
        assert [v.expected for v in download.validations] == [3]

    def test_defaults(self, monkeypatch, tmp_path):
        """Both forms of Factory.build() have optional path and artifact."""
        monkeypatch.chdir(tmp_path)
        for download in (Factory(EMPTY).build(URL), Factory.build(URL, EMPTY)):
            assert download.writer.path == str(tmp_path / "file.rpm")
            assert download.validations == []

    def test_importer(self):
        """A factory has its importer as attribute."""
        importer = Importer()
        assert Factory(importer).importer is importer

    def test_subclass(self):
        """Factory.build() on a subclass makes a factory of that subclass."""

        class Mine(Factory):
            def __init__(self, importer):
                super().__init__(Importer(username="mine"))

        assert Mine.build(URL, Importer(username="other"), "p").user.name == "mine"
        assert Mine(None).build(URL, "p").user.name == "mine"

    def test_subclass_that_overrides_build(self):
        """A subclass that overrides build() may call super().build().

        It then has no class-level form.
        """

        class Mine(Factory):
            def build(self, url, path=None, artifact=None):
                download = super().build(url, path, artifact)
                download.attachment = self.importer
                return download

        download = Mine(EMPTY).build(URL, "p", self.ARTIFACT)
        assert download.attachment is EMPTY
        assert [v.expected for v in download.validations] == [3]

    def test_introspection(self):
        """Factory.build keeps its name and docstring in both forms."""
        for method in (Factory.build, Factory(EMPTY).build.func):
            assert method.__doc__.startswith("Build a download.")
            assert method.__name__ == "build"


@pytest.mark.parametrize("url", ["http://h/a", "https://h/a", "ftp://h/a", "ftps://h/a"])
@pytest.mark.parametrize(
    ("importer", "expected"),
    [
        (EMPTY, SSL()),
        (Importer(), SSL()),
        (Remote(), SSL()),
        (Importer(ssl_ca_certificate=FileField("ca.pem")), SSL("ca.pem")),
        (
            Importer(
                ssl_client_certificate=FileField("c.pem"), ssl_client_key=FileField("/k/c.key")
            ),
            SSL(None, "c.pem", "/k/c.key"),
        ),
        (Importer(ssl_ca_certificate="ca.pem"), SSL("ca.pem")),
        (Importer(ssl_ca_certificate=Path("ca.pem")), SSL("ca.pem")),
        (Importer(ssl_ca_certificate=SimpleNamespace(name="")), SSL()),
        (Importer(ssl_ca_certificate=SimpleNamespace(name=None)), SSL()),
        (Importer(ssl_ca_certificate=None, ssl_client_certificate="", ssl_client_key=None), SSL()),
        (Importer(ssl_validation=False), SSL(validation=False)),
        (Importer(ssl_validation=None), SSL()),
        (Remote(tls_validation=False), SSL(validation=False)),
        (Remote(ca_cert=PEM, client_cert="C" + PEM, client_key="K" + PEM),
         SSL(PEM, "C" + PEM, "K" + PEM)),
        (Remote(ca_cert="", client_cert="", client_key=""), SSL()),
    ],
)  # fmt: skip
def test_ssl(importer, expected, url):
    """TLS settings of importers and remotes are used for each protocol.

    Empty ones count as unset.
    """
    found = build(importer, url).ssl
    names = ("ca_certificate", "client_certificate", "client_key")
    assert [getattr(found, name) or None for name in names] == [
        getattr(expected, name) for name in names
    ]
    assert found.validation is expected.validation


@pytest.mark.parametrize("url", ["http://h/a", "https://h/a", "ftp://h/a"])
@pytest.mark.parametrize(
    ("importer", "expected"),
    [
        (EMPTY, User()),
        (Importer(), User()),
        (Remote(), User()),
        (Importer(username="u", password="p"), User("u", "p")),
        (SimpleNamespace(basic_auth_user="u", basic_auth_password="p"), User("u", "p")),
        (Importer(basic_auth_user="u", basic_auth_password="p"), User("u", "p")),
        (Importer(username="new", password="new", basic_auth_user="old", basic_auth_password="old"),
         User("new", "new")),
        (Remote(username="u", password=None), User("u", None)),
        (Remote(username="token"), User("token")),
    ],
)  # fmt: skip
def test_user(importer, expected, url):
    """The factory reads user and password by the names of 2017 and of today."""
    assert build(importer, url).user == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"proxy_url": ""}, None),
        ({"proxy_url": None, "proxy_username": "u", "proxy_password": "p"}, None),
        ({"proxy_url": "http://proxy:3128"}, "http://proxy:3128"),
        ({"proxy_url": "http://u:p@proxy:3128"}, "http://u:p@proxy:3128"),
        (
            {"proxy_url": "http://proxy:3128", "proxy_username": "u", "proxy_password": "p"},
            "http://u:p@proxy:3128",
        ),
        (
            {"proxy_url": "http://o:l@proxy:1", "proxy_username": "u", "proxy_password": "p"},
            "http://u:p@proxy:1",
        ),
        ({"proxy_url": "http://proxy:1", "proxy_username": "u"}, "http://u:@proxy:1"),
        (
            {"proxy_url": "https://proxy:1/", "proxy_username": "a@b:/", "proxy_password": "ü%#?"},
            "https://a@b:/:ü%#?@proxy:1/",
        ),
        (
            {"proxy_url": "proxy:1", "proxy_username": "u", "proxy_password": "p"},
            "http://u:p@proxy:1",
        ),
    ],
)
@pytest.mark.parametrize("url", ["http://h/a", "https://h/a"])
def test_proxy(attributes, expected, url):
    """The factory puts a proxy's credentials into its URL, percent-encoded."""
    from urllib.parse import unquote, urlsplit

    found = build(SimpleNamespace(**attributes), url).proxy_url
    assert (found and unquote(found)) == expected
    if found and attributes.get("proxy_username"):
        parts = urlsplit(found)
        assert unquote(parts.username) == attributes["proxy_username"]
        assert unquote(parts.password) == attributes.get("proxy_password", "")
        assert parts.hostname == "proxy"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, {}),
        ([], {}),
        ([{"X-A": "1"}, {"X-B": "2", "X-C": "3"}], {"X-A": "1", "X-B": "2", "X-C": "3"}),
        ([{"X-A": "1"}, {"x-a": "2"}], {"X-A": "2"}),
    ],
)
def test_headers(headers, expected):
    """The factory merges a remote's list of dicts into headers, ignoring case."""
    found = build(Remote(headers=headers)).headers
    assert len(found) == len(expected)
    assert all(found[name] == value for name, value in expected.items())


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, Timeout()),
        ({"connect_timeout": None, "sock_connect_timeout": None}, Timeout()),
        ({"connect_timeout": 5.0}, Timeout(5.0, 30)),
        ({"sock_connect_timeout": 6}, Timeout(6, 30)),
        ({"connect_timeout": 5, "sock_connect_timeout": 6}, Timeout(5, 30)),
        ({"connect_timeout": 7, "sock_connect_timeout": 6}, Timeout(6, 30)),
        ({"sock_read_timeout": 8.5}, Timeout(10, 8.5)),
        ({"connect_timeout": 99, "sock_read_timeout": 8.5}, Timeout(99, 8.5)),
        ({"connect_timeout": 0, "sock_read_timeout": 0.0}, Timeout(None, None)),
        ({"connect_timeout": 0, "sock_connect_timeout": 6}, Timeout(6, 30)),
        ({"connect_timeout": 0, "sock_connect_timeout": 0}, Timeout(None, 30)),
        ({"connect_timeout": "5", "sock_connect_timeout": 6}, Timeout("5", 30)),
        ({"connect_timeout": 5, "sock_connect_timeout": [6]}, Timeout([6], 30)),
    ],
)
@pytest.mark.parametrize("url", ["http://h/a", "https://h/a", "ftp://h/a"])
def test_timeout(attributes, expected, url):
    """The factory uses the smaller connect time-out, and the read time-outs, for each protocol.

    A time-out of 0 counts as unset. A value that isn't a number is refused by the run.
    """
    found = build(SimpleNamespace(**attributes), url).timeout
    assert (found.connect, found.read) == (expected.connect, expected.read)


@pytest.mark.parametrize(("given", "expected"), [(None, 6), (0, 0), (7, 7)])
@pytest.mark.parametrize("url", ["http://h/a", "https://h/a", "ftp://h/a"])
def test_max_retries(given, expected, url):
    """The factory sets the number of retries of a remote on its own downloads only."""
    assert build(SimpleNamespace(max_retries=given), url).retry.total == expected
    assert build(EMPTY, url).retry.total == 6


def test_max_retries_of_a_kind_that_is_never_tried_again():
    """A file download has no retries, whatever the remote's number of retries."""
    assert build(SimpleNamespace(max_retries=7), "file:///a").retry is None


@pytest.mark.parametrize(("given", "total"), [(None, None), (90.5, 90.5), (0, None)])
@pytest.mark.parametrize("url", ["http://h/a", "https://h/a", "ftp://h/a"])
def test_total_timeout(given, total, url):
    """The factory sets the remote's total time-out; by default, or with 0, there is none."""
    assert build(SimpleNamespace(total_timeout=given), url).timeout.total == total


def test_rate_limit():
    """Downloads of one factory share its rate limit, and those of another factory don't."""
    remote = SimpleNamespace(rate_limit=5)
    factory = Factory(remote)
    limiters = {factory.build(url, "p").rate_limiter for url in (URL, "http://h/a", "ftp://h/a")}
    assert len(limiters) == 1
    assert None not in limiters
    assert build(remote).rate_limiter not in limiters
    assert build(SimpleNamespace(rate_limit=None)).rate_limiter is None
    assert build(SimpleNamespace(rate_limit=0)).rate_limiter is None
    assert build().rate_limiter is None


def digests(*names, content=b"content"):
    """Return digests of a content, by name."""
    return {name: hashlib.new(name, content, usedforsecurity=False).hexdigest() for name in names}


class TestArtifact:
    @pytest.mark.parametrize(
        ("names", "chosen"),
        [
            ((), None),
            (("md5",), "md5"),
            (("sha1", "md5"), "sha1"),
            (("sha224", "sha1"), "sha224"),
            (("sha256", "sha224"), "sha256"),
            (("md5", "sha384", "sha256"), "sha384"),
            (("md5", "sha1", "sha224", "sha256", "sha384", "sha512"), "sha512"),
        ],
    )
    @pytest.mark.parametrize("absent", [None, ""])
    @pytest.mark.parametrize("url", ["http://h/a", "ftp://h/a", "file:///a"])
    def test_strongest_digest(self, names, chosen, absent, url):
        """The factory validates the strongest digest that an artifact has, for each protocol."""
        attributes = dict.fromkeys(DigestValidation.ALGORITHMS, absent) | digests(*names)
        validations = build(url=url, artifact=SimpleNamespace(**attributes)).validations
        assert [(type(v), v.algorithm.name, v.expected) for v in validations] == (
            [(DigestValidation, chosen, attributes[chosen])] if chosen else []
        )

    @pytest.mark.parametrize(
        ("attributes", "expected"),
        [
            ({}, []),
            ({"size": None}, []),
            ({"size": ""}, []),
            ({"size": 0}, [0]),
            ({"size": 7}, [7]),
            ({"size": "7"}, [7]),
            ({"size": 7.0}, [7]),
            ({"size": Decimal(7)}, [7]),
            ({"size": 2**60 + 1}, [2**60 + 1]),
        ],
    )
    def test_size(self, attributes, expected):
        """The factory validates the size that an artifact has, also 0."""
        validations = build(artifact=SimpleNamespace(**attributes)).validations
        assert [type(v) for v in validations] == [SizeValidation] * len(expected)
        assert [v.expected for v in validations] == expected

    @pytest.mark.parametrize(
        ("importer", "count"),
        [
            (EMPTY, 2),
            (Remote(), 2),
            (Importer(validate=True), 2),
            (Importer(validate=None), 2),
            (Importer(validate=False), 0),
        ],
    )
    def test_validate(self, importer, count):
        """An importer may turn validation off. By default all validations are enforced."""
        artifact = SimpleNamespace(size=7, **digests("sha256"))
        validations = build(importer, artifact=artifact).validations
        assert len(validations) == count
        assert all(v.enforced for v in validations)

    @pytest.mark.parametrize(
        "bad",
        [
            *({"size": size} for size in (-1, "x", 1.5, True, [], float("inf"), float("nan"))),
            *({"sha256": digest} for digest in ("nonsense", "sha256:" + "0" * 64, 7, b"0" * 64)),
            {"size": -1, "sha256": "x"},
        ],
    )
    @pytest.mark.parametrize("content", [b"content", b""])
    def test_malformed(self, bad, content, tmp_path):
        """With an invalid size or digest in an artifact, the built download fails when it is run.

        It fails at the first bytes and leaves no target.
        """
        source = tmp_path / "source"
        source.write_bytes(content)
        target = tmp_path / "target"
        download = build(url=source.as_uri(), path=target, artifact=SimpleNamespace(**bad))
        download.retries = 0
        with pytest.raises(ValidationError, match="can't be right: "):
            download()
        assert download.position == 0
        assert list(tmp_path.iterdir()) == [source]
        # A retry doesn't change that.
        with pytest.raises(ValidationError, match="can't be right: "):
            download()


class TestName:
    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("http://h/pub/file.rpm", "file.rpm"),
            ("http://h/pub/file.rpm?key=a/b#c/d", "file.rpm"),
            ("http://h//etc//passwd", "passwd"),
            ("http://h/../../passwd", "passwd"),
            ("file:///etc/passwd", "passwd"),
            ("ftp://h/a%20b%2B+c", "a b++c"),
            ("ftp://h/a.iso;type=i", "a.iso"),
            ("FTPS://h/a.iso;TYPE=A", "a.iso"),
            ("http://h/a.iso;type=i", "a.iso;type=i"),
            ("http://h/%C3%A9", "é"),
            ("http://h/%F0%9F%90%AF", "\U0001f42f"),
            ("http://h/" + "a" * 255, "a" * 255),
            ("http://h/" + "%C3%A9" * 127, "é" * 127),
            ("http://h/.download-", ".download-"),
            ("http://h/CON", "CON"),
            ("http://h/...", "..."),
            ("http://h/.hidden", ".hidden"),
            ("http://h/C:file", "C:file"),
            ("http://h/~", "~"),
            ("http://h/%252F", "%2F"),
        ],
    )
    def test_from_url(self, url, name, monkeypatch, tmp_path):
        """Without a path the file is named after the decoded end of the URL's path."""
        monkeypatch.chdir(tmp_path)
        path = build(url=url, path=None).writer.path
        assert path == str(tmp_path / name)
        assert Path(path).parent == tmp_path

    @pytest.mark.parametrize(
        "url",
        [
            "http://h",
            "http://h/",
            "http://h/a/",
            "http://h/a/?b",
            "http://h?file",
            "http://h/.",
            "http://h/a/..",
            "http://h/%2e",
            "http://h/%2E%2e",
            "http://h/%2Fetc%2Fpasswd",
            "http://h/..%2F..%2Fetc%2Fpasswd",
            "http://h/a%2F",
            "http://h/a%5Cb",
            "http://h/a\\b",
            "http://h/a%00b",
            "file:///",
            "ftp://h/%2F",
            "http://h/%FF",
            "http://h/%C0%AE%C0%AE",
            "http://h/%ED%B3%BF",
            "http://h/a%0Ab",
            "http://h/%1B[2J",
            "http://h/a%7F",
            "http://h/" + "a" * 256,
            "http://h/" + "%C3%A9" * 128,
            "http://h/.download-0123456789abcdef",
            "http://h/.download-0123456789abcdef.partial",
            "http://h/%2Edownload-0123456789abcdef.note",
        ],
    )
    def test_hostile(self, url):
        """A file name from a URL that is empty, invalid or has a separator is refused at once."""
        with pytest.raises(ValueError, match="name"):
            build(url=url, path=None)
        assert build(url=url, path="mine").writer.path == "mine"

    @pytest.mark.parametrize(
        ("target", "refused"),
        [
            ("../elsewhere", True),
            ("../none", True),
            ("/etc/passwd", True),
            ("..", True),
            ("there", False),
            ("folder/none", False),
        ],
    )
    def test_link(self, target, refused, monkeypatch, tmp_path):
        """An existing link with the name from the URL may not lead out of the working directory."""
        (tmp_path / "elsewhere").write_text("mine")
        work = tmp_path / "work"
        (work / "folder").mkdir(parents=True)
        (work / "there").touch()
        (work / "name").symlink_to(target)
        monkeypatch.chdir(work)
        if refused:
            with pytest.raises(ValueError, match="link"):
                build(url="http://h/name", path=None)
        else:
            assert build(url="http://h/name", path=None).writer.path == str(work / "name")
        assert build(url="http://h/name", path="name").writer.path == "name"

    def test_file_system_without_unicode(self, monkeypatch):
        """A file name that the file system's encoding can't represent is refused."""

        def refuse(name):
            return name.encode("ascii", "strict")

        monkeypatch.setattr("os.fsencode", refuse)
        with pytest.raises(ValueError, match="can't be encoded"):
            build(url="http://h/%C3%A9", path=None)

    def test_no_secret(self):
        """The error about a file name shows no password and no query value of the URL."""
        with pytest.raises(ValueError, match="name") as caught:
            build(url="http://user:secret@h/a/?key=secret", path=None)
        assert "secret" not in str(caught.value)
        with pytest.raises(ValueError, match="name") as caught:
            build(url="http://user:secret@[h/a/?key=secret", path=None)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("path", ["/a/b", "a/b", Path("a/b"), Path("/a/b")])
    def test_path(self, path):
        """The factory uses a given path unchanged."""
        assert build(path=path).writer.path == str(path)


def test_nothing_shared():
    """Downloads of one factory share no settings and no validations."""
    factory = Factory(Importer(username="u"))
    first, second = (factory.build(URL, "p", SimpleNamespace(size=1)) for _ in range(2))
    for name in ("ssl", "user", "timeout", "headers", "validations", "writer"):
        assert getattr(first, name) is not getattr(second, name)


def test_no_secret_shown():
    """The repr of a built download and of its settings shows no secret of the importer."""
    download = build(
        Remote(
            username="u",
            password="secret",
            proxy_url="http://p",
            proxy_username="pu",
            proxy_password="secret",
            client_key="-----BEGIN secret",
            client_cert=PEM,
            headers=[{"Authorization": "secret"}],
        )
    )
    shown = f"{download} {download!r} {download.user!r} {download.ssl!r}"
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("attribute", "value", "name"),
    [
        ("headers", ["A: b"], "headers"),
        ("headers", "A: b", "headers"),
        ("headers", [{"A": 5}], "headers"),
        ("proxy_url", 5, "proxy_url"),
        ("rate_limit", "5", "rate_limiter"),
        ("rate_limit", -1, "rate_limiter"),
        ("max_retries", "5", "retry"),
        ("max_retries", -1, "retry"),
        ("sock_read_timeout", "5", "timeout"),
        ("connect_timeout", -5, "timeout"),
        ("username", 5, "user"),
        ("ca_cert", "/nothing/there", "ssl"),
    ],
)
def test_setting_that_cannot_be(attribute, value, name, tmp_path, monkeypatch):
    """An invalid setting of a remote fails the built download's run before anything is sent."""
    monkeypatch.chdir(tmp_path)
    download = Factory(SimpleNamespace(**{attribute: value})).build("http://192.0.2.1/a")
    with pytest.raises(DownloadFailed, match=f"a setting is wrong: {name}"):
        download()


def test_no_importer():
    """A factory without an importer builds downloads with the default settings."""
    for download in (Factory().build("http://h/a"), Factory.build("http://h/a")):
        assert type(download) is HttpDownload
        assert download.timeout == Timeout()


def test_limits_for_urls_of_others():
    """A factory's limits for untrusted URLs apply to its downloads; by default there are none."""
    factory = Factory(EMPTY, allowed_paths=["/srv"], public_only=True)
    assert factory.build("file:///srv/a", "p").allowed_paths == ["/srv"]
    assert factory.build(URL, "p").public_only is True
    for scheme in ("ftp", "ftps"):
        with pytest.raises(ValueError, match=f"^public_only: {scheme}:"):
            factory.build(f"{scheme}://h/a", "p")
    assert build(url="file:///srv/a").allowed_paths is None
    assert build().public_only is False


def test_limit_for_a_file():
    """The total time-out of a factory applies to file downloads, too."""
    assert Factory(SimpleNamespace(total_timeout=7)).build("file:///a", "a").timeout.total == 7


@pytest.mark.parametrize(("given", "concurrent"), [(None, 4), (0, 4), (7, 7)])
def test_concurrent(given: int | None, concurrent: int) -> None:
    """The factory knows how many downloads the remote allows at once; 4 if it says nothing."""
    assert Factory(SimpleNamespace(download_concurrency=given)).concurrent == concurrent
    assert Factory().concurrent == 4
