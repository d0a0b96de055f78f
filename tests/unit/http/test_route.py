"""Tests of routes: sessions, proxies, netrc and TLS settings of a destination."""

import importlib.metadata
import threading

import pytest
import requests

from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.http import route
from pulpcore.plugin.download.futures.http.route import find_route, user_agent
from pulpcore.plugin.download.futures.net import tls
from pulpcore.plugin.download.futures.net.url import parse
from pulpcore.plugin.download.futures.settings import SSL

URL = parse("https://h/a")


@pytest.fixture
def context():
    """Make a context and close it after the test."""
    context = Context()
    yield context
    context.close()


def test_shared(context):
    """Downloads with the same origin, credentials, proxy and TLS settings share one route."""
    first = find_route(URL, None, None, SSL(), context)
    assert find_route(parse("https://h/b"), None, None, SSL(), context) is first
    assert find_route(URL, ("me", "pw"), None, SSL(), context) is not first
    assert find_route(URL, None, None, SSL(client_key_password="pw"), context) is not first
    assert find_route(URL, None, None, SSL(), context, public_only=True) is not first
    assert isinstance(first.session, requests.Session)


@pytest.mark.parametrize(
    ("url", "found", "is_named"),
    [
        ("http://[::1]/", ("six", "1"), True),
        ("http://[fe80::1%25lo]/", ("brackets", "2"), True),
        ("http://[FE80::2%25lo]/", ("zone", "3"), True),
        ("http://Upper.Example/", ("upper", "4"), True),
        ("http://127.0.0.1/", ("account", ""), True),
        ("http://[::2]/", ("any", "6"), False),
    ],
)
def test_netrc(context, tmp_path, monkeypatch, url, found, is_named):
    """A netrc entry is found by host name in any case and by IPv6 address, bracketed or not."""
    (tmp_path / "netrc").write_text(
        "machine ::1 login six password 1\n"
        "machine [fe80::1] login brackets password 2\n"
        "machine fe80::2%lo login zone password 3\n"
        "machine UPPER.example login upper password 4\n"
        "machine 127.0.0.1 account account\n"
        "default login any password 6\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    route = find_route(parse(url), None, None, SSL(), context)
    assert (route.netrc, route.is_netrc_named) == (found, is_named)
    assert find_route(parse(url), ("me", "pw"), None, SSL(), context).netrc is None


@pytest.mark.parametrize(
    "text", [None, b"machine h login a password b\xff", "machine", "machine x login a password b"]
)
def test_no_netrc(context, tmp_path, monkeypatch, text):
    """A netrc file that is missing, unreadable or without the host gives no credentials."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if text is not None:
        (tmp_path / "netrc").write_bytes(text if isinstance(text, bytes) else text.encode())
    route = find_route(parse("http://h/"), None, None, SSL(), context)
    assert (route.netrc, route.is_netrc_named) == (None, False)


def test_others_fail_too(context):
    """If a route can't be made, each download gets the error, and the next one tries again."""
    for _ in range(2):
        with pytest.raises(ValueError, match="ca_certificate"):
            find_route(URL, None, None, SSL("/nowhere.pem"), context)
    with pytest.raises(ValueError, match="proxy_url"):
        find_route(URL, None, "ftp://p:1", SSL(), context)


def test_one_waits_for_another_that_fails(context, monkeypatch):
    """A download that waited for another's failed route makes the route itself and shares it."""
    real, began, go_on = tls.make_context, threading.Event(), threading.Event()
    errors, found = [], []

    def fail(*unused):
        monkeypatch.setattr(tls, "make_context", real)
        began.set()
        go_on.wait(20)
        raise ValueError("ca_certificate: broken")

    def first():
        try:
            find_route(URL, None, None, SSL(), context)
        except ValueError as error:
            errors.append(error)

    monkeypatch.setattr(tls, "make_context", fail)
    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert began.wait(20)
    waits = threading.Event()

    def second():
        waits.set()
        found.append(find_route(URL, None, None, SSL(), context))

    threads.append(threading.Thread(target=second))
    threads[1].start()
    assert waits.wait(20)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(errors) == len(found) == 1
    assert find_route(URL, None, None, SSL(), context).session is not None


def test_user_agent(monkeypatch):
    """The User-Agent names the library, and its version if that is known."""

    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    for version, expected in [
        (lambda _: "1.2", "pulpcore-futures/1.2"),
        (unknown, "pulpcore-futures"),
    ]:
        user_agent.cache_clear()
        monkeypatch.setattr(importlib.metadata, "version", version)
        assert user_agent() == expected
    user_agent.cache_clear()


def test_without_client():
    """`without_client` removes the client certificate, key and key password and keeps the rest."""
    settings = SSL("ca", "cert", "key", False, "pw")
    assert route.without_client(settings) == SSL("ca", validation=False)
    assert settings == SSL("ca", "cert", "key", False, "pw")
