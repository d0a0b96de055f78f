"""Tests of the options that both commands share."""

import click
import pytest

from pulpcore.plugin.download.futures import FileDownload, HttpDownload
from pulpcore.plugin.download.futures.cli import options as module
from pulpcore.plugin.download.futures.cli.options import Importer, common


@pytest.fixture
def parse(monkeypatch, capsys):
    """Return a function that gives the options of a command, or the text of its usage error."""
    monkeypatch.delenv("PULP_FUTURES_PASSWORD", raising=False)

    def run(*arguments):
        found = []

        @click.command()
        @common
        def command(options):
            found.append(options)

        try:
            command.main(list(arguments), standalone_mode=False)
        except click.UsageError as error:
            error.show()
            assert found == []
            return capsys.readouterr().err
        return found[0]

    return run


def test_defaults(parse):
    """Without options the commands use the defaults of the library."""
    options = parse()
    assert options.importer == Importer()
    assert (options.concurrent, options.as_json, options.verbose) == (4, False, 0)


def test_all(parse, tls, monkeypatch):
    """Each command line option sets the attribute of the importer that Factory reads."""
    monkeypatch.setenv("PULP_FUTURES_PASSWORD", "pass word")
    options = parse(
        *("--concurrent", "9", "--user", "me", "--header", "A: b", "--header", "C:d: e "),
        *("--ca", str(tls.ca), "--cert", str(tls.client.certificate)),
        *("--key", str(tls.client.key), "--insecure", "--proxy", "http://u:p@h:1"),
        *("--connect-timeout", "1.5", "--read-timeout", "2", "--json", "-vv"),
        *("--total-timeout", "3", "--least-speed", "4.5"),
    )
    importer = options.importer
    assert (options.concurrent, options.as_json, options.verbose) == (9, True, 2)
    assert (importer.total_timeout, options.least_speed) == (3, 4.5)
    assert (importer.username, importer.password) == ("me", "pass word")
    assert importer.headers == [{"A": "b"}, {"C": "d: e"}]
    assert importer.ssl_ca_certificate.name == str(tls.ca)
    assert importer.ssl_client_certificate.name == str(tls.client.certificate)
    assert importer.ssl_client_key.name == str(tls.client.key)
    assert importer.ssl_validation is False
    assert importer.proxy_url == "http://u:p@h:1"
    assert (importer.connect_timeout, importer.sock_read_timeout) == (1.5, 2.0)
    assert importer.validate is True


def test_certificate_with_key(parse, tls):
    """The file of the client certificate may contain the private key, too."""
    options = parse("--cert", str(tls.client.both))
    assert options.importer.ssl_client_key is None


def test_repr():
    """The repr of the importer shows no secret."""
    assert "secret" not in repr(Importer(username="me", password="secret"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--concurrent", "0"],
        ["--concurrent", "257"],
        ["--concurrent", "x"],
        ["--header", "secret"],
        ["--header", ": secret"],
        ["--header", "A B: secret"],
        ["--header", "A: secret\r\nB: c"],
        ["--header", "A: secret\u20ac"],
        ["--user", "me:secret"],
        ["--proxy", "u:secret@h:1"],
        ["--proxy", "socks5://u:secret@h:1"],
        ["--proxy", "http://u:secret@h:x"],
        ["--proxy", "http://u:secret@h:0"],
        ["--proxy", "http://u:secret@"],
        ["--ca", "no-such-file"],
        ["--ca", "."],
        ["--cert", "no-such-file"],
        ["--key", "no-such-file"],
        *(
            [option, value]
            for option in ("--connect-timeout", "--read-timeout", "--total-timeout")
            for value in ("0", "-1", "nan", "inf", "86401", "x", "")
        ),
    ],
)
def test_usage(parse, arguments):
    """Invalid option values are usage errors, and the message repeats no secret."""
    error = parse(*arguments)
    assert "Error: " in error
    assert "secret" not in error


@pytest.mark.parametrize("value", ["0", "65", "x"])
def test_no_parts(parse, value):
    """A number of parts below 1, or one that takes too much memory, is a usage error."""
    assert "'--parts'" in parse("--parts", value)


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_least_speed_that_is_none(parse, value):
    """A least speed of 0 or below is a usage error."""
    assert "Error: " in parse("--least-speed", value)


def test_prepare(parse):
    """The least speed, parts and mirrors are set only on downloads that have them."""
    options = parse("--least-speed", "7", "--parts", "3", "--mirror", "http://i/b/")
    http, file = HttpDownload("http://h/a", None), FileDownload("file:///a", None)
    for download in (http, file):
        options.prepare(download, options.mirrors_of("c"))
    assert http.timeout.least_speed == 7
    assert (http.parts, http.mirrors) == (3, ("http://i/b/c",))
    assert file.timeout is None


def test_no_certificate(parse, tls, tmp_path):
    """A certificate file that has no certificate, or doesn't fit the key, is a usage error."""
    (tmp_path / "empty").write_text("")
    for arguments, why in [
        (["--ca", str(tmp_path / "empty")], "holds no PEM certificate"),
        (["--ca", str(tls.client.key)], "holds no PEM certificate"),
        (["--cert", str(tls.client.certificate)], "the key of it"),
        (["--cert", str(tls.client.certificate), "--key", str(tls.stranger.key)], "the key of it"),
        (["--key", str(tls.client.key)], "--key needs --cert"),
    ]:
        assert why in parse(*arguments)


def test_unreadable(parse, tls, monkeypatch):
    """A certificate file that can't be read is a usage error."""
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "not readable" in parse("--ca", str(tls.ca))


def test_password_needed(parse, monkeypatch):
    """Without a terminal a missing password is a usage error instead of a prompt."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert "set PULP_FUTURES_PASSWORD" in parse("--user", "me")


def test_empty_password(parse, monkeypatch):
    """The environment variable for the password may contain an empty password."""
    monkeypatch.setenv("PULP_FUTURES_PASSWORD", "")
    options = parse("--user", "me")
    assert options.importer.password == ""


@pytest.mark.parametrize("answer", ["secret", ""])
def test_prompt(monkeypatch, capsys, answer):
    """On a terminal the program prompts on stderr for the password, without echoing it."""
    monkeypatch.delenv("PULP_FUTURES_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr(
        "click.termui.hidden_prompt_func", lambda text: asked.append(text) or answer
    )
    assert module._password("me") == answer
    written = capsys.readouterr()
    assert written.out == ""
    # Which of them writes the line break depends on the version of click.
    assert (written.err + asked[0]).startswith("Password of me:")
