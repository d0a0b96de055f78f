"""Tests of HttpDownload with correct servers: the requests and the results of each response."""

import enum
import gzip
import hashlib
import pickle
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from http_tools import content, failure, into_memory, names, quick, record
from servers.files import File, Redirect
from servers.raw import Loop, Recv, Send, Signal, Stall, Wait, chunked, reply, serve

from pulpcore.plugin.download.futures import (
    SSL,
    DigestValidation,
    DownloadFailed,
    Event,
    FileWriter,
    HttpDownload,
    NotAuthorized,
    NotFound,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.rate import RateLimiter
from pulpcore.plugin.download.futures.validation import DigestMismatch, SizeMismatch

BODY = bytes(range(256)) * 2000


class Method(str, enum.Enum):  # noqa: UP042 - a StrEnum is written as its value
    """A string that equals a method name but is printed differently."""

    GET = "GET"


class TestStatuses:
    @pytest.mark.parametrize("status", [200, 203])
    def test_success(self, file_server: Any, status: int) -> None:
        """A response with status 200 or 203 is downloaded."""
        server = file_server({"/a": File(BODY, status=status)})
        download = into_memory(server.url("/a"))
        assert content(download) == BODY
        assert download.status == download.reply.status_code == status

    @pytest.mark.parametrize(
        ("kind", "statuses"),
        [
            (DownloadFailed, [201, 202, 204, 205, 207, 226]),
            (DownloadFailed, [300, 302, 304, 305, 306]),
            (NotFound, [404, 410]),
            (NotAuthorized, [401, 403, 407]),
            (DownloadFailed, [400, 402, 405, 406, 408, 409, 411, 416, 418, 421, 429, 451, 499]),
            (DownloadFailed, [500, 501, 502, 503, 504, 505, 599, 600, 999]),
        ],
    )
    def test_failure(
        self, file_server: Any, tmp_path: Path, kind: type[DownloadFailed], statuses: list[int]
    ) -> None:
        """Any other HTTP status raises its error, which names it, and keeps the old file."""
        target = tmp_path / "file"
        target.write_bytes(b"old")
        files = {f"/{status}": File(b"", status=status) for status in statuses}
        server = file_server(files)
        for status in statuses:
            download = HttpDownload(server.url(f"/{status}"), FileWriter(target))
            download.retry = None
            error = failure(download, kind)
            assert str(status) in error.reason
            assert download.status == download.reply.status_code == status
        assert server.count == len(statuses)
        assert (target.read_bytes(), list(tmp_path.iterdir())) == (b"old", [target])

    def test_reason_of_the_server(self, raw_server: Any) -> None:
        """Errors don't repeat a response's reason phrase, because it may contain anything."""
        server = raw_server([serve(reply(418, reason="SECRET"))])
        assert "SECRET" not in str(failure(into_memory(server.url())))

    @pytest.mark.parametrize(
        "interim",
        [
            reply(100),
            reply(102),
            reply(103, {"Link": "</x>; rel=preload"}),
            reply(100) + reply(103) * 9,
            reply(199),
        ],
    )
    def test_interim(self, raw_server: Any, interim: bytes) -> None:
        """An interim response (1xx) is skipped, and its connection is reused."""
        server = raw_server([serve(interim + reply(body=b"abc"))])
        with_context = into_memory(server.url())
        other = into_memory(server.url())
        context = other.context = with_context.context = with_context.context
        assert content(with_context) == content(other) == b"abc"
        context.close()
        assert server.connections == 1

    def test_status_before_a_reply(self) -> None:
        """Before any response `status` is 0 and `reply` is None."""
        download = into_memory("http://127.0.0.1/")
        assert (download.status, download.reply) == (0, None)

    def test_status_is_forgotten(self, raw_server: Any) -> None:
        """A run without a response resets `status` and `reply` of the previous run."""
        server = raw_server([[Recv(), Send(reply(body=b"abc"))]])
        download = into_memory(server.url())
        download()
        server.close()
        failure(download, DownloadFailed)
        assert (download.status, download.reply) == (0, None)


class TestMethods:
    @pytest.mark.parametrize("method", ["GET", "get", "Get"])
    def test_get(self, file_server: Any, method: str) -> None:
        """The method GET is accepted in any letter case."""
        server = file_server({"/a": BODY})
        assert content(into_memory(server.url("/a"), method=method)) == BODY
        assert server.requests[0].method == "GET"

    @pytest.mark.parametrize("method", ["POST", "PUT", "", " GET", None, "HEADER"])
    def test_others(self, method: Any) -> None:
        """A method other than GET and HEAD raises ValueError at once."""
        with pytest.raises(ValueError, match="method"):
            into_memory("http://127.0.0.1/", method=method)

    def test_changed_later(self, file_server: Any) -> None:
        """A method that is set after the construction is checked before anything is sent."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        download.method = "delete"
        assert "method" in failure(download, DownloadFailed).reason
        assert server.connections == 0

    def test_looks_alike(self, file_server: Any) -> None:
        """A method object that equals GET but is printed differently is refused."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        download.method = Method.GET
        assert "method" in failure(download, DownloadFailed).reason
        assert server.connections == 0

    def test_changed_between_attempts(self, file_server: Any) -> None:
        """A method that a handler sets between attempts is checked before the next request."""
        server = file_server({"/a": File(b"", status=500)})
        download = into_memory(server.url("/a"), retry=None)

        def repair(event: Any) -> None:
            download.method = "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"
            event.repaired = True

        download.register(Event.ERROR, repair)
        error = failure(download, DownloadFailed)
        assert "a setting is wrong: method" in error.reason
        assert error.facts is not None
        assert (error.facts.attempt, error.facts.status) == (2, 0)
        assert [request.method for request in server.requests] == ["GET"]

    def test_changed_within_an_attempt(self, file_server: Any) -> None:
        """A method set during a redirect can't inject a line into the next request."""
        server = file_server({"/a": Redirect("/b"), "/b": Redirect("/c"), "/c": BODY})
        download = into_memory(server.url("/a"), retry=None)

        class Limiter(RateLimiter):
            def delay(self) -> float:
                if server.count:
                    download.method = "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"
                return 0

        download.rate_limiter = Limiter(1)
        assert "can't be sent" in failure(download, DownloadFailed).reason
        assert [request.target for request in server.requests] == ["/a", "/b"]

    @pytest.mark.parametrize(
        "file",
        [
            File(BODY),
            File(BODY, status=203),
            File(BODY, content_encoding="gzip"),
            File(BODY, content_encoding="br"),
            File(b""),
        ],
    )
    def test_head(self, file_server: Any, tmp_path: Path, file: File) -> None:
        """A HEAD download has a response, and neither writes the target nor validates."""
        server = file_server({"/a": Redirect("/b"), "/b": file})
        target = tmp_path / "file"
        target.write_bytes(b"old")
        for writer in (FileWriter(target), FileWriter(tmp_path / "folder" / "none")):
            download = HttpDownload(server.url("/a"), writer, method="head")
            download.validations += [SizeValidation(7), DigestValidation("md5", "0" * 32)]
            download()
            assert download.reply.headers["Content-Length"] == str(len(file.body))
            assert download.status == file.status
        assert (target.read_bytes(), list(tmp_path.iterdir())) == (b"old", [target])
        assert {request.method for request in server.requests} == {"HEAD"}

    def test_head_into_a_buffer(self, file_server: Any) -> None:
        """After HEAD a buffer writer is empty and the connection is reusable at once."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        context = download.context = download.context
        assert content(download) == BODY
        download.method = "HEAD"
        assert content(download) == b""
        download.method = "GET"
        assert content(download) == BODY
        context.close()
        assert server.connections == 1

    def test_head_of_what_is_missing(self, file_server: Any) -> None:
        """A HEAD download of a missing file fails like GET."""
        failure(into_memory(file_server({}).url("/a"), method="HEAD"), NotFound)


class TestRequest:
    def test_headers(self, file_server: Any) -> None:
        """Requests have a User-Agent with name and version, and Accept-Encoding: identity."""
        server = file_server({"/a": BODY})
        content(into_memory(server.url("/a")))
        request = server.requests[0]
        assert re.fullmatch(r"pulpcore-futures(/\d[\w.+-]*)?", request.header("User-Agent") or "")
        assert request.header("Accept-Encoding") == "identity"
        assert request.header("Host") == server.host
        sent = {name.lower() for name, _ in request.headers}
        assert not sent & {"authorization", "cookie", "range", "if-range", "content-length"}

    def test_own_headers(self, file_server: Any) -> None:
        """The caller's headers replace ours, whatever the case of their names."""
        server = file_server({"/a": BODY})
        own = {"user-agent": "me/1", "ACCEPT": "text/plain", "X-Mine": "é", "Cookie": "a=b"}
        content(into_memory(server.url("/a"), headers=own))
        request = server.requests[0]
        for name, value in own.items():
            assert [v for n, v in request.headers if n.lower() == name.lower()] == [value]

    def test_headers_are_copied(self, file_server: Any) -> None:
        """Changing the caller's mapping later has no effect; changing `headers` has."""
        server = file_server({"/a": BODY})
        own = {"X-A": "1"}
        download = into_memory(server.url("/a"), headers=own)
        own["X-A"] = "2"
        download.headers["x-b"] = "3"
        content(download)
        assert (server.requests[0].header("X-A"), server.requests[0].header("X-B")) == ("1", "3")

    def test_prepared_may_change(self, file_server: Any) -> None:
        """A handler of Prepared can still change `url`, `headers` and `user`."""
        server = file_server({"/b": BODY}, user=("me", "secret"))
        download = into_memory(server.url("/a"))

        def prepare(event: Any) -> None:
            event.download.url = server.url("/b")
            event.download.headers["X-A"] = "1"
            event.download.user = User("me", "secret")

        download.register(Event.PREPARED, prepare)
        assert content(download) == BODY
        assert server.requests[0].header("X-A") == "1"

    @pytest.mark.parametrize(
        ("user", "userinfo", "headers", "netrc", "sent"),
        [
            (None, "", {}, False, None),
            (User("me", "secret"), "", {}, False, ("me", "secret")),
            (User("me"), "", {}, False, ("me", "")),
            (User("mé", "sécret:€"), "", {}, False, ("mé", "sécret:€")),
            (User("", "token"), "", {}, False, ("", "token")),
            (None, "me:secret", {}, False, ("me", "secret")),
            (None, "m%40e:s%2fe%3ac", {}, False, ("m@e", "s/e:c")),
            (None, "me", {}, False, ("me", "")),
            (User("me", "secret"), "other:word", {}, False, ("me", "secret")),
            (None, "", {}, True, ("net", "rc")),
            (User("me", "secret"), "", {}, True, ("me", "secret")),
            (None, "me:secret", {}, True, ("me", "secret")),
            (None, "", {"authorization": "Bearer x"}, True, "Bearer x"),
            (User("me", "secret"), "a:b", {"Authorization": "Bearer x"}, True, "Bearer x"),
        ],
    )
    def test_user(
        self,
        file_server: Any,
        user: User | None,
        userinfo: str,
        headers: dict[str, str],
        netrc: bool,
        sent: Any,
    ) -> None:
        """Credentials are taken from the header, else `user`, else the URL, else netrc."""
        from servers.message import basic

        if netrc:
            (Path.home() / ".netrc").write_text("machine 127.0.0.1 login net password rc")
            (Path.home() / ".netrc").chmod(0o600)
        server = file_server({"/a": BODY})
        url = server.url("/a", userinfo=userinfo)
        content(into_memory(url, user=user, headers=headers))
        request = server.requests[0]
        expected = basic(*sent) if isinstance(sent, tuple) else sent
        found = [value for name, value in request.headers if name.lower() == "authorization"]
        assert found == ([] if expected is None else [expected])
        assert (request.target, request.header("Host")) == ("/a", server.host)

    @pytest.mark.parametrize(
        ("path", "target"),
        [
            ("", "/"),
            ("/a b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/a%20b%2Fc", "/a%20b%2Fc"),
            ("/a#part", "/a"),
            ("/a?x=1&y=%20#part", "/a?x=1&y=%20"),
            ("/a?mail=me@b.example", "/a?mail=me@b.example"),
            ("/me@b", "/me@b"),
            ("?mail=me@b.example", "/?mail=me@b.example"),
            ("#me@b.example", "/"),
        ],
    )
    def test_target(self, raw_server: Any, path: str, target: str) -> None:
        """The request target is path and query of the URL, percent-encoded where needed."""
        server = raw_server([serve(reply(body=b"abc"))])
        download = into_memory(f"http://{server.host}{path}")
        assert content(download) == b"abc"
        assert server.requests[0].target == target
        assert server.requests[0].header("Host") == server.host

    def test_scheme_in_capitals(self, file_server: Any) -> None:
        """The URL scheme may be in upper case."""
        server = file_server({"/a": BODY})
        assert content(into_memory(server.url("/a").replace("http", "HTTP"))) == BODY

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/a",
            "127.0.0.1/a",
            "ftp://127.0.0.1/a",
            "file:///etc/hosts",
            "http://",
            "http:///a",
            "http://[::1",
            "http://127.0.0.1:port/",
            "http://127.0.0.1:99999/",
            "http://a b/",
            "http://*.h/",
            "http://-x..y/",
            "http://" + "x" * 64 + ".example/",
            "http://\u2100.example/",
            None,
            b"http://127.0.0.1/",
        ],
    )
    def test_bad_url(self, url: Any) -> None:
        """An invalid HTTP URL raises DownloadFailed with a clear message."""
        assert "URL" in failure(into_memory(url), DownloadFailed).reason.replace("url", "URL")

    @pytest.mark.parametrize(
        ("attribute", "value", "named"),
        [
            ("timeout", Timeout(connect=0), "timeout.connect"),
            ("timeout", Timeout(read="1"), "timeout.read"),  # type: ignore[arg-type]
            ("ssl", SSL(ca_certificate="/nowhere"), "ssl.ca_certificate"),
            ("ssl", SSL(client_certificate="/nowhere"), "ssl.client_certificate"),
            ("ssl", SSL(client_key=__file__), "ssl.client_key"),
            ("user", User("a:b", "c"), "user.name"),
            ("headers", {"X-A": "1\r\nX-B: 2"}, "X-A"),
            ("headers", {"X\nA": "1"}, "headers"),
            ("headers", {"X-A": " 1"}, "X-A"),
            ("headers", {"X-A": "€"}, "X-A"),
            ("headers", {"X-A": 1}, "X-A"),
            ("headers", {"X-A": None}, "X-A"),
            ("headers", {"": "1"}, "headers"),
            ("headers", {"X A": "1"}, "headers"),
            ("headers", {"X-A:": "1"}, "headers"),
            ("proxy_url", "http://", "proxy_url"),
            ("proxy_url", "http://127.0.0.1:port", "proxy_url"),
            ("proxy_url", "ftp://127.0.0.1:1", "proxy_url"),
        ],
    )
    def test_bad_setting(
        self, file_server: Any, tmp_path: Path, attribute: str, value: Any, named: str
    ) -> None:
        """An invalid setting raises DownloadFailed that names it, before anything is sent."""
        server = file_server({"/a": BODY})
        target = tmp_path / "file"
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/a"), FileWriter(target))
        setattr(download, attribute, value)
        assert named in failure(download, DownloadFailed).reason
        assert (server.connections, target.read_bytes()) == (0, b"old")

    def test_settings_may_be_none(self, file_server: Any) -> None:
        """A setting of None means its default, as in the constructor."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        download.timeout = download.ssl = download.user = None  # type: ignore[assignment]
        assert content(download) == BODY

    def test_bytes_in_headers(self, file_server: Any) -> None:
        """A header value may be bytes, as in requests."""
        server = file_server({"/a": BODY})
        content(into_memory(server.url("/a"), headers={"X-A": b"1"}))
        assert server.requests[0].header("X-A") == "1"


class TestOwnRange:
    @pytest.mark.parametrize(
        ("value", "found"),
        [
            ("bytes=2-5", BODY[2:6]),
            ("bytes=500000-", BODY[500000:]),
            ("bytes=-3", BODY[-3:]),
            ("bytes=0-0", BODY[:1]),
        ],
    )
    def test_part(self, file_server: Any, value: str, found: bytes) -> None:
        """A 206 response to the caller's own Range is a success with that part."""
        server = file_server({"/a": File(BODY, etag='"e"')})
        download = into_memory(server.url("/a"), headers={"range": value})
        download.validations.append(SizeValidation(len(found)))
        assert (content(download), download.status) == (found, 206)

    def test_bytes(self, file_server: Any) -> None:
        """The caller's Range header may be bytes."""
        server = file_server({"/a": File(BODY, etag='"e"')})
        headers: dict[str, Any] = {"Range": b"bytes=2-5"}
        assert content(into_memory(server.url("/a"), headers=headers)) == BODY[2:6]

    def test_encoded(self, raw_server: Any) -> None:
        """A 206 response to the caller's own Range is decoded if it has a Content-Encoding."""
        zipped = gzip.compress(BODY)
        fields = {
            "Content-Range": f"bytes 0-{len(zipped) - 1}/{len(zipped)}",
            "Content-Encoding": "gzip",
        }
        server = raw_server([serve(reply(206, fields, zipped))])
        assert content(into_memory(server.url(), headers={"Range": "bytes=0-"})) == BODY

    def test_no_ranges(self, file_server: Any) -> None:
        """If the server ignores the caller's Range, the whole file is downloaded."""
        server = file_server({"/a": File(BODY, ranges=False)})
        assert content(into_memory(server.url("/a"), headers={"Range": "bytes=2-5"})) == BODY

    @pytest.mark.parametrize("value", ["bytes 3-6/512000", "bytes 0-3/9", "bytes 2-4/9"])
    def test_another_part(self, raw_server: Any, value: str) -> None:
        """A 206 response with a part other than the requested one is refused."""
        server = raw_server([serve(reply(206, {"Content-Range": value}, b"abcd"))])
        download = into_memory(server.url(), headers={"Range": "bytes=2-5"})
        assert "isn't the one" in failure(download, DownloadFailed).reason

    def test_shorter_than_it_says(self, raw_server: Any) -> None:
        """A 206 response with fewer bytes than its Content-Range is an error."""
        server = raw_server([serve(reply(206, {"Content-Range": "bytes 2-5/9"}, b"abc"))])
        failure(into_memory(server.url(), headers={"Range": "bytes=2-5"}), DownloadFailed)

    def test_not_asked_for(self, raw_server: Any) -> None:
        """A 206 response without a requested range is refused, even if it has the whole file."""
        server = raw_server([serve(reply(206, {"Content-Range": "bytes 0-3/4"}, b"abcd"))])
        assert "not asked for" in failure(into_memory(server.url()), DownloadFailed).reason


class TestHandsOff:
    """Handlers that read from the body of the running download."""

    @pytest.mark.parametrize("chunks", [False, True])
    @pytest.mark.parametrize(
        "touch",
        [
            lambda reply: reply.content,
            lambda reply: next(reply.iter_content(10)),
            lambda reply: reply.raw.read(10),
            lambda reply: reply.raw.close(),
            lambda reply: reply.close(),
            pickle.dumps,
        ],
        ids=["content", "iter_content", "read", "raw.close", "close", "pickle"],
    )
    @pytest.mark.parametrize("event", [Event.REPLIED, Event.FETCHED])
    def test_touched(
        self, raw_server: Any, tmp_path: Path, touch: Any, event: str, chunks: bool
    ) -> None:
        """If a handler reads from the body, the download fails and keeps the old file."""
        whole = reply(200, {}, BODY)
        if chunks:
            whole = reply(200, {"Transfer-Encoding": "chunked"}, chunked(BODY, [1000]))
        server = raw_server([[Recv(), Send(whole), Stall()]])
        target = tmp_path / "target"
        target.write_bytes(b"old")
        download = HttpDownload(server.url(), FileWriter(target))
        download.retry = None
        download.register(event, lambda event: touch(event.download.reply))
        error = failure(download, DownloadFailed)
        assert "read of the reply" in error.reason
        assert target.read_bytes() == b"old"

    def test_looked_at(self, raw_server: Any) -> None:
        """A handler may read everything of the response but its body."""
        server = raw_server([serve(reply(200, {"Set-Cookie": "a=1"}, BODY))])
        download = into_memory(server.url())
        seen = []
        download.register(
            Event.REPLIED,
            lambda event: seen.append(
                (
                    event.download.reply.raw.headers["Set-Cookie"],
                    event.download.reply.cookies["a"],
                    event.download.reply.encoding,
                    type(event.download.reply.connection).__name__,
                )
            ),
        )
        assert content(download) == BODY
        assert seen == [("a=1", "1", None, "Adapter")]

    def test_refused(self, raw_server: Any) -> None:
        """A handler may read the body of an error response, which may explain the error."""
        server = raw_server([serve(reply(404, {}, b"gone"))])
        download = into_memory(server.url())
        texts = []
        download.register(Event.REPLIED, lambda event: texts.append(event.download.reply.text))
        failure(download, NotFound)
        assert texts == ["gone"]


def test_mounted_adapter(file_server: Any) -> None:
    """An adapter that the user mounts on the session sends the download's requests."""
    server = file_server({"/a": BODY})
    asked = []

    class Mine(requests.adapters.HTTPAdapter):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
            asked.append(request.url)
            return super().send(request, *args, **kwargs)

    download = into_memory(server.url("/a"))
    download.context = Context()
    download.session.mount("http://", Mine())
    assert content(download) == BODY
    assert asked == [server.url("/a")]
    download.context.close()


class TestReply:
    def test_attributes(self, file_server: Any) -> None:
        """`reply` is a usual requests.Response, and `url` of the download stays as given."""
        server = file_server({"/a": Redirect("/b"), "/b": Redirect("/c", 301), "/c": BODY})
        url = server.url("/a?x=1", userinfo="me:secret")
        download = into_memory(url)
        content(download)
        answer = download.reply
        assert isinstance(answer, requests.Response)
        assert (answer.status_code, answer.reason, answer.ok) == (200, "OK", True)
        assert answer.headers["content-length"] == str(len(BODY))
        assert answer.url == server.url("/c")
        assert [item.status_code for item in answer.history] == [302, 301]
        assert [item.url for item in answer.history] == [server.url("/a?x=1"), server.url("/b")]
        assert timedelta(0) < answer.elapsed < timedelta(seconds=60)
        assert answer.request.method == "GET"
        assert download.url == url

    def test_names_and_defaults(self) -> None:
        """Attributes have the names of the constructor's arguments, which may be positional."""
        settings = (Timeout(1, 2), User("me"), SSL(validation=False))
        download = HttpDownload(
            "http://127.0.0.1/", None, "HEAD", *settings, "http://p", {"X-A": "1"}
        )
        assert (download.method, download.proxy_url) == ("HEAD", "http://p")
        assert (download.timeout, download.user, download.ssl) == settings
        assert download.headers["x-a"] == "1"
        plain = HttpDownload("http://127.0.0.1/", None)
        assert (plain.timeout.connect, plain.timeout.read) == (10, 30)
        assert repr(plain) == "<HttpDownload GET http://127.0.0.1/>"

    def test_timeout_of_read(self, raw_server: Any) -> None:
        """A server that stops sending is an error after the read time-out, also in the body."""
        for script in ([Recv(), Stall()], [Recv(), Send(reply(body=b"abc")[:-1]), Stall()]):
            server = raw_server([script])
            download = into_memory(server.url(), timeout=Timeout(read=0.1))
            assert "time-out" in failure(download, DownloadFailed).reason

    def test_error_keeps_its_cause(self, raw_server: Any) -> None:
        """A network error has the original exception as its cause."""
        server = raw_server([[Recv()]])
        error = failure(into_memory(server.url("/?token=SECRET")), DownloadFailed)
        assert isinstance(error.__cause__, requests.ConnectionError)
        assert "SECRET" not in str(error.__cause__)


class TestEvents:
    def test_order(self, file_server: Any) -> None:
        """A download publishes Prepared, Sent, Replied, Fetched at each offset, and Succeeded."""
        server = file_server({"/a": Redirect("/b"), "/b": Redirect("/c"), "/c": BODY})
        download = into_memory(server.url("/a"))
        events = record(download)
        download()
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"]
        fetched = [event for event in events if event.NAME == Event.FETCHED]
        assert b"".join(event.buffer for event in fetched) == BODY
        offset = 0
        for event in fetched:
            assert event.offset == offset
            offset += len(event.buffer)

    def test_order_of_failure(self, file_server: Any) -> None:
        """A failed response publishes Replied, Error and Failed, in this order."""
        download = into_memory(file_server({}).url("/a"))
        events = record(download)
        error = failure(download, NotFound)
        assert names(events) == ["PREPARED", "SENT", "REPLIED", "ERROR", "FAILED"]
        assert events[-1].error is events[-2].error is error

    def test_empty_and_head(self, file_server: Any) -> None:
        """An empty file and a HEAD request publish no Fetched event."""
        server = file_server({"/a": b""})
        for method in ("GET", "HEAD"):
            download = into_memory(server.url("/a"), method=method)
            events = record(download)
            download()
            assert names(events) == ["PREPARED", "SENT", "REPLIED", "SUCCEEDED"]

    def test_replied_before_the_body(self, raw_server: Any) -> None:
        """Replied is published with the response before its body has arrived."""
        seen = threading.Event()
        whole = reply(headers={"X-A": "1"}, body=b"abc")
        server = raw_server([[Recv(), Send(whole[:-3]), Wait(seen), Send(whole[-3:])]])
        download = into_memory(server.url(), timeout=Timeout(read=60))
        found = []

        def replied(event: Any) -> None:
            found.append((event.download.status, event.download.reply.headers["X-A"]))
            seen.set()

        download.register(Event.REPLIED, replied)
        assert content(download) == b"abc"
        assert found == [(200, "1")]


class TestContent:
    def test_buffer_writer(self, file_server: Any) -> None:
        """A buffer writer gives the content as text and as bytes."""
        download = into_memory(file_server({"/a": b"h\xc3\xa9\xff"}).url("/a"))
        assert content(download) == b"h\xc3\xa9\xff"
        assert download.writer.content() == download.writer.read() == "h\xe9\ufffd"  # type: ignore[union-attr]

    def test_no_writer(self, file_server: Any) -> None:
        """A download without a writer still validates the content."""
        download = HttpDownload(file_server({"/a": BODY}).url("/a"), None)
        size = SizeValidation(len(BODY))
        download.validations.append(size)
        download()
        assert size.actual == len(BODY)

    @pytest.mark.parametrize(
        "data",
        [
            reply(headers={"Transfer-Encoding": "chunked"}, body=chunked(BODY, [1, 7, 70000])),
            reply(headers={"Transfer-Encoding": "CHUNKED"}, body=chunked(BODY)),
            reply(
                headers={"Transfer-Encoding": "chunked", "Content-Length": "3"}, body=chunked(BODY)
            ),
            reply(body=BODY),
            reply(headers={"Content-Length": f"{len(BODY)}, {len(BODY)}"}, body=BODY),
            reply(body=BODY, length=False),
            reply(body=BODY, version="HTTP/1.0"),
            reply(body=BODY, version="HTTP/1.0", length=False),
            reply(body=BODY) + b"and more",
        ],
    )
    def test_framings(self, raw_server: Any, data: bytes) -> None:
        """The content is exactly the body, however that is delimited."""
        server = raw_server([[Recv(), Send(data)]])
        assert content(into_memory(server.url())) == BODY

    def test_validated(self, file_server: Any, tmp_path: Path) -> None:
        """Content that passes its validations is published at the target."""
        download = HttpDownload(file_server({"/a": BODY}).url("/a"), FileWriter(tmp_path / "x"))
        digest = hashlib.sha256(BODY).hexdigest().upper()
        download.validations += [SizeValidation(len(BODY)), DigestValidation("sha256", digest)]
        download()
        assert (tmp_path / "x").read_bytes() == BODY

    @pytest.mark.parametrize(
        ("validation", "kind"),
        [
            (SizeValidation(len(BODY) + 1), SizeMismatch),
            (SizeValidation(len(BODY) - 1), SizeMismatch),
            (SizeValidation(0), SizeMismatch),
            (DigestValidation("md5", "0" * 32), DigestMismatch),
        ],
    )
    def test_mismatch(
        self, file_server: Any, tmp_path: Path, validation: Any, kind: type[SizeMismatch]
    ) -> None:
        """Content that fails a validation isn't published, and isn't retried by itself."""
        server = file_server({"/a": BODY})
        target = tmp_path / "file"
        target.write_bytes(b"old")
        download = HttpDownload(server.url("/a"), FileWriter(target))
        download.retry = quick()
        download.validations.append(validation)
        failure(download, kind)
        assert (target.read_bytes(), list(tmp_path.iterdir())) == (b"old", [target])
        assert server.count == 1

    def test_over_size_stops_early(self, raw_server: Any) -> None:
        """An endless body is given up with the buffer that exceeds the validated size."""
        began = threading.Event()
        block = b"x" * 100_000
        server = raw_server(
            [[Recv(), Send(reply(length=False)), Signal(began), Loop([Send(block)])]]
        )
        download = into_memory(server.url())
        download.validations.append(SizeValidation(1_000_000))
        error = failure(download, SizeMismatch)
        assert began.is_set()
        assert error.actual <= 1_000_000 + download.BLOCK  # type: ignore[attr-defined]
        server.until(lambda: server.logs[0].end)
        assert server.logs[0].end == "client gone"
