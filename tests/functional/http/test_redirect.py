"""Tests of redirects: targets, limits, credentials and loss of security."""

import hashlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from http_tools import content, failure, into_memory, names, quick, record, trust
from requests.cookies import cookiejar_from_dict
from servers.files import CutAfter, File, FileServer, Redirect
from servers.message import basic
from servers.raw import Loop, Recv, Send, Stall, chunked, reply, serve

from pulpcore.plugin.download.futures import (
    DigestValidation,
    DownloadFailed,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.context import Context

BODY = b"content " * 1000


class TestWhere:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_statuses(self, file_server: Any, status: int, method: str) -> None:
        """Each redirect status is followed with the original method."""
        server = file_server({"/a": Redirect("/b", status), "/b": BODY})
        download = into_memory(server.url("/a"), method=method)
        assert content(download) == (BODY if method == "GET" else b"")
        assert server.paths == ["/a", "/b"]
        assert {request.method for request in server.requests} == {method}
        assert (download.url, download.status) == (server.url("/a"), 200)

    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("/b", "/b"),
            ("b", "/x/b"),
            ("./b", "/x/b"),
            ("../b", "/b"),
            ("../../../b", "/b"),
            ("?q=1", "/x/a?q=1"),
            ("b?q=1&r=%20", "/x/b?q=1&r=%20"),
            ("//{host}/b", "/b"),
            ("http://{host}/b", "/b"),
            ("HTTP://{host}/b", "/b"),
            ("http://{host}", "/"),
            ("http://{host}?q=me@b.example", "/?q=me@b.example"),
            ("http://me:secret@{host}/b", "/b"),
            ("/b#part", "/b"),
            ("/b c", "/b%20c"),
            ("/b%20c%2Fd", "/b%20c%2Fd"),
            ("/%", "/%25"),
            ("/\xc3\xa9", "/%C3%A9"),
            ("/\xe9", "/%E9"),
            ('/b"<>', "/b%22%3C%3E"),
            ("  /b  ", "/b"),
            ("http:/b", "/b"),
        ],
    )
    def test_locations(self, raw_server: Any, location: str, target: str) -> None:
        """Relative, unquoted and unusual Locations lead where a browser would go."""

        def answer(request: Any) -> bytes:
            if len(server.requests) == 1:
                return reply(302, {"Location": location.format(host=server.host)})
            return reply(body=BODY)

        server = raw_server([serve(answer)])
        assert content(into_memory(server.url("/x/a"))) == BODY
        assert server.requests[1].target == target
        assert server.requests[1].header("Authorization") is None

    @pytest.mark.parametrize(
        "location",
        [
            "ftp://127.0.0.1/b",
            "file:///etc/hosts",
            "javascript:alert(1)",
            "http://[::1",
            "http://127.0.0.1:port/",
            "http://127.0.0.1:99999/",
            "//:80/",
        ],
    )
    def test_bad_locations(self, file_server: Any, tmp_path: Path, location: str) -> None:
        """A Location that can't be followed is an error that mentions the redirect."""
        server = file_server({"/a": Redirect(location)})
        error = failure(into_memory(server.url("/a"), quick()), DownloadFailed)
        assert "redirect" in error.reason
        assert server.count == 1

    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("/x//./y/../z", "/x//./y/../z"),
            ("http://{host}//%2f%7E/../?", "//%2f%7E/../?"),
            ("/100%/a%20b?rate=5%&x=y%20z", "/100%25/a%20b?rate=5%25&x=y%20z"),
            ("c//d/../e", "/x//y/c//e"),
            ("https:c", None),
        ],
    )
    def test_as_given(self, raw_server: Any, location: str, target: str | None) -> None:
        """An absolute path in a Location is sent unchanged; a relative one is resolved."""

        def answer(request: Any) -> bytes:
            if len(server.requests) == 1:
                return reply(302, {"Location": location.format(host=server.host)})
            return reply(body=BODY)

        server = raw_server([serve(answer)])
        download = into_memory(server.url("/x//y/a"))
        if target is None:
            assert "redirects" in failure(download, DownloadFailed).reason
            return
        assert content(download) == BODY
        assert server.requests[1].target == target
        assert download.reply.url == f"http://{server.host}{target}"

    @pytest.mark.parametrize(("second", "followed"), [("/b", True), ("/c", False)])
    def test_location_twice(self, raw_server: Any, second: str, followed: bool) -> None:
        """A repeated identical Location is followed; two different ones are an error."""
        headers = [("Location", "/b"), ("location", second)]

        def answer(request: Any) -> bytes:
            return reply(302, headers) if request.target == "/a" else reply(body=BODY)

        server = raw_server([serve(answer)])
        download = into_memory(server.url("/a"))
        if followed:
            assert content(download) == BODY
        else:
            assert "302" in failure(download, DownloadFailed).reason
        assert server.requests[-1].target == ("/b" if followed else "/a")

    @pytest.mark.parametrize("headers", [{}, {"Location": ""}])
    def test_no_location(self, raw_server: Any, headers: dict[str, str]) -> None:
        """A redirect without a Location is an error."""
        server = raw_server([serve(reply(302, headers, b"go away"))])
        assert "302" in failure(into_memory(server.url()), DownloadFailed).reason

    def test_names_who_failed(self, file_server: Any) -> None:
        """If the target of a redirect is unreachable, the error names it."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            server = file_server({"/a": Redirect(f"http://127.0.0.1:{port}/b?token=SECRET")})
            text = str(failure(into_memory(server.url("/a")), DownloadFailed))
        assert server.url("/a") in text
        assert f"127.0.0.1:{port}" in text
        assert "SECRET" not in text

    def test_several_hops_of_base(self, file_server: Any) -> None:
        """A relative Location is resolved against the URL that sent it."""
        server = file_server({"/a": Redirect("/x/b"), "/x/b": Redirect("c"), "/x/c": BODY})
        assert content(into_memory(server.url("/a"))) == BODY

    def test_last_reply_counts(self, file_server: Any) -> None:
        """The last response of a redirect chain decides, with one Replied an attempt."""
        server = file_server({"/a": Redirect("/b"), "/b": Redirect("/c")})
        download = into_memory(server.url("/a"))
        events = record(download)
        assert "404" in failure(download).reason
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "ERROR", "FAILED"]
        assert [item.status_code for item in download.reply.history] == [302, 302]

    def test_starts_over_at_the_first(self, file_server: Any) -> None:
        """A resumed attempt starts at the first URL and sends its range to every hop."""
        files = {"/a": Redirect("/b"), "/b": File(BODY, etag='"e"')}
        server = file_server(files, faults={1: CutAfter(500)})
        assert content(into_memory(server.url("/a"), quick())) == BODY
        assert server.paths == ["/a", "/b", "/a", "/b"]
        assert [r.header("Range") for r in server.requests] == [None, None, *["bytes=500-"] * 2]

    @pytest.mark.parametrize(("number", "size"), [(1500, 20), (40, 1500), (1, 40_000)])
    def test_many_cookies(self, raw_server: Any, number: int, size: int) -> None:
        """Many cookies of a redirect chain are limited in number and cost little time."""

        def answer(request: Any) -> bytes:
            hop = len(server.requests)
            if hop == 13:
                return reply(body=BODY)
            cookies = [("Set-Cookie", f"c{hop}-{index}={'x' * size}") for index in range(number)]
            return reply(302, [("Location", f"/{hop}"), *cookies])

        server = raw_server([serve(answer)])
        began = time.process_time()
        assert content(into_memory(server.url("/a"), timeout=Timeout(total=60))) == BODY
        # This includes the server's work. Parsing all of them took 3 s.
        assert time.process_time() - began < 1.5
        sent = server.requests[-1].header("Cookie") or ""
        kept = sent.split("; ") if sent else []
        assert len(kept) == min(100, 32 * 1024 // (size + len("c1-0=")), number * 12)
        assert all(cookie.startswith("c1-") for cookie in kept)

    def test_cookies(self, raw_server: Any) -> None:
        """A cookie set by a redirect is sent to later hops, but not by the next download."""

        def answer(request: Any) -> bytes:
            if request.target == "/a":
                return reply(302, {"Location": "/b", "Set-Cookie": "key=value; Path=/"})
            return reply(body=BODY)

        server = raw_server([serve(answer)])
        first = into_memory(server.url("/a"))
        context = first.context = first.context
        content(first)
        other = into_memory(server.url("/b"))
        other.context = context
        content(other)
        context.close()
        assert [r.header("Cookie") for r in server.requests] == [None, "key=value", None]

    @pytest.mark.parametrize("is_set", [True, False])
    def test_cookies_of_the_session(self, file_server: Any, is_set: bool) -> None:
        """A cookie that the owner of a session sets is sent, also from a jar of its own."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        download.context = context = Context()
        if is_set:
            download.session.cookies.set("key", "value")
        else:
            download.session.cookies = cookiejar_from_dict({"key": "value"})
        content(download)
        content(download)
        context.close()
        assert [r.header("Cookie") for r in server.requests] == ["key=value"] * 2


class TestHowFar:
    @pytest.mark.parametrize("hops", [30, 31])
    def test_limit(self, file_server: Any, hops: int) -> None:
        """Up to 30 redirects are followed, and the 31st is an error."""
        files: dict[str, Any] = {f"/{n}": Redirect(f"/{n + 1}") for n in range(hops)}
        server = file_server({**files, f"/{hops}": BODY})
        download = into_memory(server.url("/0"), quick())
        if hops > 30:
            assert "30 redirects" in failure(download, DownloadFailed).reason
        else:
            assert content(download) == BODY
        assert server.count == 31

    def test_loop(self, file_server: Any) -> None:
        """A redirect loop ends with an error and isn't retried."""
        server = file_server({"/a": Redirect("/b"), "/b": Redirect("/a")})
        failure(into_memory(server.url("/a"), quick()), DownloadFailed)
        assert server.count == 31


class TestBody:
    @pytest.mark.parametrize(
        "headers", [{"Content-Length": str(1 << 40)}, {"Transfer-Encoding": "chunked"}, {}]
    )
    def test_endless(self, raw_server: Any, headers: dict[str, str]) -> None:
        """The endless body of a redirect isn't read; its connection is closed."""
        block = b"x" * 100_000
        begin = reply(302, {"Location": "/b", **headers}, length=False)
        endless = Loop([Send(chunked(block, end=b"") if "Transfer-Encoding" in headers else block)])
        server = raw_server([[Recv(), Send(begin), endless], serve(reply(body=BODY))])
        assert content(into_memory(server.url())) == BODY
        server.until(lambda: server.logs[0].end)
        assert (server.logs[0].end, server.connections) == ("client gone", 2)

    @pytest.mark.parametrize("size", [0, 9, 5000])
    def test_small(self, file_server: Any, size: int) -> None:
        """After the small body of a redirect its connection is reused."""
        server = file_server({"/a": Redirect("/b", body=b"x" * size), "/b": BODY})
        assert content(into_memory(server.url("/a"))) == BODY
        assert server.connections == 1

    @pytest.mark.parametrize("end", [[Stall()], []], ids=["stalled", "cut"])
    def test_broken(self, raw_server: Any, end: list[Any]) -> None:
        """A redirect is followed even if its body never arrives."""
        begin = reply(302, {"Location": "/b", "Content-Length": "9"}, b"x")
        server = raw_server([[Recv(), Send(begin), *end], serve(reply(body=BODY))])
        assert content(into_memory(server.url(), timeout=Timeout(read=60))) == BODY
        assert server.connections == 2


class TestCredentials:
    """Credentials are sent to the original origin only."""

    HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")

    @pytest.mark.parametrize(
        "options",
        [
            {"user": User("me", "secret")},
            {"userinfo": "me:secret"},
            {"headers": {"AUTHORIZATION": "Bearer secret"}},
            {"headers": {"cookie": "key=secret"}},
            {"headers": {"Proxy-Authorization": "Basic secret"}},
            {"headers": {b"Authorization": b"Bearer secret"}},
            {"headers": {b"cookie": "key=secret"}},
            {"user": User("me", "secret"), "netrc": True},
            {"userinfo": "me:secret", "netrc": True},
        ],
        ids=" ".join,
    )
    @pytest.mark.parametrize("elsewhere", ["port", "host"])
    def test_elsewhere(self, file_server: Any, options: dict[str, Any], elsewhere: str) -> None:
        """After a redirect only the original origin gets the credentials, also on the way back."""
        if options.get("netrc"):
            # With a user of the caller, netrc isn't used, least of all on other hosts.
            (Path.home() / ".netrc").write_text("default login net password rc")
            (Path.home() / ".netrc").chmod(0o600)
        home_files: dict[str, Any] = {"/c": BODY}
        home, other = file_server(home_files), file_server({})
        there = other if elsewhere == "port" else home
        host = "127.0.0.1" if elsewhere == "port" else "localhost"
        home_files["/a"] = Redirect(there.url("/b", host))
        home_files["/b"] = Redirect(home.url("/c"))
        other.files["/b"] = Redirect(home.url("/c"))
        options = {name: value for name, value in options.items() if name != "netrc"}
        url = home.url("/a", userinfo=options.pop("userinfo", ""))
        headers = {"X-Mine": "yes", **options.pop("headers", {})}
        assert content(into_memory(url, headers=headers, **options)) == BODY
        requests = {request.target: request for request in [*home.requests, *other.requests]}
        found = {
            path: [request.header(name) for name in self.HEADERS]
            for path, request in requests.items()
        }
        assert found["/a"] == found["/c"] != [None] * 3
        assert found["/b"] == [None] * 3
        assert requests["/b"].header("X-Mine") == "yes"
        assert all("secret" not in str(request.lines[0]) for request in requests.values())

    def test_netrc_of_the_other(self, file_server: Any) -> None:
        """Without a user setting, netrc gives the credentials for each host."""
        netrc = "machine 127.0.0.1 login a password b\nmachine localhost login c password d"
        (Path.home() / ".netrc").write_text(netrc)
        (Path.home() / ".netrc").chmod(0o600)
        server = file_server({"/b": BODY})
        server.files["/a"] = Redirect(server.url("/b", "localhost"))
        content(into_memory(server.url("/a")))
        found = [request.header("Authorization") for request in server.requests]
        assert found == [basic("a", "b"), basic("c", "d")]

    @pytest.mark.parametrize(
        ("netrc", "host", "sent"),
        [
            # The default entry is for the host that the caller chose.
            ("default login a password b", "localhost", [basic("a", "b"), None]),
            # A netrc file has no ports.
            ("machine 127.0.0.1 login a password b", "127.0.0.1", [basic("a", "b"), None]),
            ("machine localhost login c password d", "localhost", [None, basic("c", "d")]),
            (b"machine localhost login c password \xff", "localhost", [None, None]),
        ],
    )
    def test_netrc_elsewhere(
        self, file_server: Any, netrc: str | bytes, host: str, sent: list[str | None]
    ) -> None:
        """Netrc credentials go to another host that netrc names, and to no other port."""
        content_of_it = netrc if isinstance(netrc, bytes) else netrc.encode()
        (Path.home() / ".netrc").write_bytes(content_of_it)
        other = file_server({"/b": BODY})
        home = file_server({"/a": Redirect(other.url("/b", host))})
        assert content(into_memory(home.url("/a"))) == BODY
        found = [server.requests[0].header("Authorization") for server in (home, other)]
        assert found == sent

    def test_netrc_where_security_is_lost(self, file_server: Any, tls: Any) -> None:
        """Netrc credentials aren't sent over http after a redirect from https."""
        (Path.home() / ".netrc").write_text("machine localhost login c password d")
        plain = file_server({"/b": BODY})
        secure = file_server({"/a": Redirect(plain.url("/b", "localhost"))}, tls=tls.server())
        options = {"ssl": trust(tls.ca), "insecure_redirects": True}
        assert content(into_memory(secure.url("/a"), **options)) == BODY
        assert plain.requests[0].header("Authorization") is None

    def test_netrc_beside_a_header(self, file_server: Any) -> None:
        """With an Authorization header of the caller, netrc isn't used on any host."""
        (Path.home() / ".netrc").write_text("machine localhost login c password d")
        server = file_server({"/b": BODY})
        server.files["/a"] = Redirect(server.url("/b", "localhost"))
        content(into_memory(server.url("/a"), headers={"authorization": "Bearer x"}))
        found = [request.header("Authorization") for request in server.requests]
        assert found == ["Bearer x", None]

    @pytest.mark.parametrize("userinfo", ["", ":"])
    def test_empty_userinfo(self, file_server: Any, userinfo: str) -> None:
        """Empty userinfo in the URL counts as none, so netrc is used."""
        (Path.home() / ".netrc").write_text("machine 127.0.0.1 login a password b")
        server = file_server({"/a": BODY})
        content(into_memory(f"http://{userinfo}@{server.host}/a"))
        assert server.requests[0].header("Authorization") == basic("a", "b")

    @pytest.mark.parametrize("where", ["there", "back"])
    def test_client_certificate(self, file_server: Any, tls: Any, where: str) -> None:
        """The client certificate is sent only to the original host and port."""
        strict = file_server({"/b": BODY}, tls=tls.server(client_ca=tls.ca))
        other = file_server({"/b": Redirect(strict.url("/b"))}, tls=tls.server())
        options = {"ssl": trust(tls.ca, tls.client)}
        if where == "there":
            other.files["/a"] = Redirect(strict.url("/b"))
            error = failure(into_memory(other.url("/a"), **options))
            assert "client certificate" in error.reason
            assert strict.count == 0
        else:
            strict.files["/a"] = Redirect(other.url("/b"))
            assert content(into_memory(strict.url("/a"), **options)) == BODY

    def test_host_header(self, file_server: Any) -> None:
        """The caller's Host header is sent only to the original host."""
        other = file_server({"/b": BODY})
        home = file_server({"/a": Redirect(other.url("/b"))})
        content(into_memory(home.url("/a"), headers={"Host": "files.example"}))
        assert home.requests[0].header("Host") == "files.example"
        assert other.requests[0].header("Host") == other.host

    @pytest.mark.parametrize(
        ("url", "location", "kept"),
        [
            ("http://one.example.test/a", "https://one.example.test/b", True),
            ("http://one.example.test:80/a", "https://ONE.example.test:443/b", True),
            ("http://one.example.test/a", "https://one.example.test:444/b", False),
            ("http://one.example.test:81/a", "https://one.example.test/b", False),
            ("http://one.example.test/a", "https://two.example.test/b", False),
            ("http://one.example.test/a", "http://one.example.test:80/b", True),
            ("https://one.example.test/a", "http://one.example.test/b", False),
        ],
    )
    def test_to_https(
        self, file_server: Any, proxy: Any, tls: Any, url: str, location: str, kept: bool
    ) -> None:
        """Credentials follow a redirect from http to https on a host's standard ports."""
        files = {"/a": Redirect(location), "/b": BODY}
        plain, secure = file_server(files), file_server(files, tls=tls.server())
        hosts = {f"one.example.test:{port}": plain.port for port in (80, 81)}
        hosts |= {f"one.example.test:{port}": secure.port for port in (443, 444)}
        server = proxy(hosts={**hosts, "two.example.test:443": secure.port})
        download = into_memory(
            url,
            user=User("me", "secret"),
            headers={"Cookie": "key=secret"},
            ssl=trust(tls.ca),
            proxy_url=server.url(""),
            insecure_redirects=True,
        )
        assert content(download) == BODY
        requests = [*plain.requests, *secure.requests]
        (second,) = [request for request in requests if request.target == "/b"]
        assert (second.header("Authorization") is not None) is kept
        assert (second.header("Cookie") is not None) is kept


class TestSecurity:
    @staticmethod
    def servers(file_server: Any, tls: Any) -> tuple[FileServer, FileServer]:
        """Start an HTTPS server that redirects to an HTTP server: /a directly, /x over hops."""
        plain = file_server({"/b": BODY})
        secure = file_server({}, tls=tls.server())
        secure.files |= {"/a": Redirect(plain.url("/b")), "/x": Redirect("/a"), "/b": BODY}
        plain.files |= {"/to": Redirect(secure.url("/a")), "/up": Redirect(secure.url("/b"))}
        return plain, secure

    @pytest.mark.parametrize(
        "validations",
        [
            [],
            [SizeValidation(len(BODY))],
            [DigestValidation("md5", hashlib.md5(BODY).hexdigest(), enforced=False)],
        ],
        ids=["none", "size", "not enforced"],
    )
    @pytest.mark.parametrize("path", ["/a", "/x", "/to"])
    def test_refused(self, file_server: Any, tls: Any, path: str, validations: list[Any]) -> None:
        """A redirect from https to http is refused unless a digest is enforced.

        Nothing is sent to the http server.
        """
        plain, secure = self.servers(file_server, tls)
        url = (plain if path == "/to" else secure).url(path)
        download = into_memory(url, quick(), ssl=trust(tls.ca))
        download.validations += validations
        assert "from https to http" in failure(download, DownloadFailed).reason
        assert "/b" not in plain.paths

    @pytest.mark.parametrize("path", ["/a", "/x"])
    def test_allowed(self, file_server: Any, tls: Any, path: str) -> None:
        """A redirect from https to http is followed with an enforced digest or a setting."""
        _, secure = self.servers(file_server, tls)
        download = into_memory(secure.url(path), ssl=trust(tls.ca))
        download.validations.append(DigestValidation("md5", hashlib.md5(BODY).hexdigest()))
        assert content(download) == BODY
        options = {"ssl": trust(tls.ca), "insecure_redirects": True}
        assert content(into_memory(secure.url(path), **options)) == BODY

    def test_upwards(self, file_server: Any, tls: Any) -> None:
        """A redirect from http to https is followed without any condition."""
        plain, _ = self.servers(file_server, tls)
        assert content(into_memory(plain.url("/up"), ssl=trust(tls.ca))) == BODY

    def test_untrusted_target(self, file_server: Any, tls: Any) -> None:
        """The certificate of a redirect's target is verified as usual."""
        plain, _ = self.servers(file_server, tls)
        error = failure(into_memory(plain.url("/up")))
        assert "not trusted" in error.reason
