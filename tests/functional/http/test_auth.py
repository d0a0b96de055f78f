"""Tests of ``auth``: callables as those of requests, digest authentication, and bearer tokens."""

import hashlib
import json
import logging
import pickle
import socket
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from credentials import TOKEN, add_token, the_token
from http_tools import Opened, content, failure, into_memory, quick, trust
from requests.auth import HTTPDigestAuth
from servers.files import CutAfter, File, FileServer, Redirect, Status
from servers.message import Request, basic

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    DownloadError,
    DownloadFailed,
    Factory,
    HttpDownload,
    Limits,
    NotAuthorized,
    SizeValidation,
    Timeout,
    User,
)
from pulpcore.plugin.download.futures.auth import BearerAuth
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine.spec import Packer, check, unpack
from pulpcore.plugin.download.futures.waiting.cancellation import current

BODY = b"content " * 1000


def sent(server: FileServer) -> list[str | None]:
    """Return the Authorization header of each request."""
    return [request.header("Authorization") for request in server.requests]


FILES = {f"/{number}": b"%d" % number * 50 for number in range(60)}


def pipelined(server: FileServer, auth: Any) -> int:
    """Download the files with pipelining, and return how many replies came by it."""
    downloads = []
    for path, body in FILES.items():
        download = into_memory(server.url(path), auth=auth)
        digest = DigestValidation("sha256", hashlib.sha256(body).hexdigest())
        download.validations = [SizeValidation(len(body)), digest]
        downloads.append(download)
    with Batch(downloads, concurrent=1, pipeline=8) as batch:
        plans = [plan.result() for plan in batch()]
    # The reply to a request that was sent alone has a connection.
    return sum("connection" not in vars(download.reply) for download in plans)


class Refusing(FileServer):
    """Demands the bearer token in the attribute `valid`. Its challenge names no realm."""

    valid = TOKEN

    def _answer(self, request: Request) -> Any:
        if request.header("Authorization") != f"Bearer {self.valid}":
            return self._reply(401, (), b"who are you?")
        return super()._answer(request)


class Registry(FileServer):
    """Demands a token for the repository of a path, which its realm gives out.

    Attributes:
        realm: The URL to get a token from; '' for that of this server.
        asked: How often a token was given out, by scope.
        life: What the realm says of the life of a token.
        wrong: The registry refuses the tokens that the realm gives out.
        challenge: Replaces the whole challenge.
    """

    def __init__(self, *args: Any, realm: str = "", **options: Any) -> None:
        self.realm = realm
        self.asked: Counter[str] = Counter()
        self.life: dict[str, Any] = {"expires_in": 300}
        self.wrong = False
        self.challenge = ""
        self.valid: dict[str, str] = {}
        self.user: tuple[str, str] | None = None
        self._lock = threading.Lock()
        super().__init__(*args, **options)

    def _answer(self, request: Request) -> Any:
        if request.path == "/token":
            return self._token(request)
        scope = f"repository:{request.path.split('/')[2]}:pull,push"
        valid = self.valid.get(scope)
        if valid is not None and request.header("Authorization") == f"Bearer {valid}":
            return super()._answer(request)
        realm = self.realm or self.url("/token")
        challenge = self.challenge or (
            f'Basic realm="a, b", Bearer realm="{realm}",service="the \\"service\\"",'
            f'scope="{scope}", Negotiate'
        )
        return self._reply(401, {"WWW-Authenticate": challenge}, b"x" * 300)

    def _token(self, request: Request) -> Any:
        if self.user is not None and request.header("Authorization") != basic(*self.user):
            return self._reply(401, (), b"")
        query = parse_qs(urlsplit(request.target).query)
        assert query["service"] == ['the "service"']
        (scope,) = query["scope"]
        with self._lock:
            self.asked[scope] += 1
            value = f"s3cret-{self.asked[scope]}.{hashlib.sha256(scope.encode()).hexdigest()[:9]}"
        if not self.wrong:
            self.valid[scope] = value
        return self._reply(200, (), json.dumps({"token": value, **self.life}).encode())


class Digest(FileServer):
    """Demands digest authentication (RFC 7616)."""

    def _answer(self, request: Request) -> Any:
        given = request.header("Authorization") or ""
        if not given.startswith("Digest "):
            challenge = 'Digest realm="files", nonce="abc", qop="auth", algorithm=SHA-256'
            fields = {"WWW-Authenticate": challenge, "Set-Cookie": "visit=1"}
            return self._reply(401, fields, b"x" * 100)
        fields = requests.utils.parse_dict_header(given[7:])

        def digest(*parts: str) -> str:
            return hashlib.sha256(":".join(parts).encode()).hexdigest()

        user = digest("me", "files", "s3cret-pass")
        wanted = digest(
            user,
            "abc",
            fields["nc"],
            fields["cnonce"],
            "auth",
            digest(request.method, request.target),
        )
        assert fields["uri"] == request.target
        if fields["response"] != wanted:
            return self._reply(403, (), b"")
        return super()._answer(request)


class TestCallable:
    def test_applied(self, file_server: Any) -> None:
        """A callable changes each request, and wins over the user, the URL and netrc."""
        server = file_server({"/a": BODY})
        url = server.url("/a").replace("//", "//url:pw@")
        assert content(into_memory(url, auth=add_token, user=("me", "pw"))) == BODY
        assert sent(server) == [f"Bearer {TOKEN}"]
        server.requests.clear()
        for given in (url, server.url("/a")):
            download = into_memory(given, auth=lambda request: request, user=("me", "pw"))
            assert content(download) == BODY
        assert sent(server) == [None, None]

    def test_netrc_elsewhere(
        self, file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With `auth`, netrc isn't used, not even after a redirect to another host."""
        (tmp_path / "netrc").write_text("machine localhost login me password pw\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        there = file_server({"/b": BODY})
        home = file_server({"/a": Redirect(there.url("/b").replace("127.0.0.1", "localhost"))})
        assert content(into_memory(home.url("/a"))) == BODY
        assert content(into_memory(home.url("/a"), auth=add_token)) == BODY
        assert sent(there) == [basic("me", "pw"), None]

    @pytest.mark.parametrize("key", ["s3cret-key-1", "s3cret-key-2"])
    def test_echo(self, file_server: Any, caplog: pytest.LogCaptureFixture, key: str) -> None:
        """An API key that the callable or its hook sends is redacted if a redirect repeats it."""
        caplog.set_level(logging.DEBUG)
        server = file_server({"/a": Redirect(f"http://127.0.0.1:1/{key}")})

        def auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["X-Api-Key"] = "s3cret-key-1"
            request.hooks["response"].append(again)
            return request

        def again(response: requests.Response, **options: Any) -> requests.Response:
            request = response.request.copy()
            request.headers["X-Other-Key"] = "s3cret-key-2"
            return response.connection.send(request, **options)

        error = failure(into_memory(server.url("/a"), auth=auth))
        assert server.count == 2
        assert "127.0.0.1:1" in str(error)
        assert "s3cret" not in str(error) + repr(error.__cause__) + caplog.text

    @pytest.mark.parametrize("adds", [True, False])
    def test_netrc(
        self, file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adds: bool
    ) -> None:
        """The netrc file isn't used for a download with `auth`, even if that adds nothing."""
        (tmp_path / "netrc").write_text("default login me password pw\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        server = file_server({"/a": BODY})
        auth = add_token if adds else lambda request: request
        context = Context()
        for each in (auth, None):
            download = into_memory(server.url("/a"), auth=each)
            download.context = context
            download()
        context.close()
        assert sent(server) == [f"Bearer {TOKEN}" if adds else None, basic("me", "pw")]

    def test_header_wins(self, file_server: Any) -> None:
        """The caller's Authorization header wins. The callable isn't called then."""
        server = file_server({"/a": BODY})
        headers = {"authorization": "Mine abc"}
        assert content(into_memory(server.url("/a"), auth=pytest.fail, headers=headers)) == BODY
        assert sent(server) == ["Mine abc"]

    def test_connections_without_it(self, file_server: Any) -> None:
        """Downloads whose callable isn't called share connections, however many callables."""
        server = file_server({"/a": BODY})
        context = Context()
        for auth in (add_token, pytest.fail, None):
            download = into_memory(server.url("/a"), auth=auth, headers={"authorization": "Mine"})
            download.context = context
            assert content(download) == BODY
        context.close()
        assert server.connections == 1

    def test_elsewhere(self, file_server: Any) -> None:
        """The callable isn't called for a redirect to another origin, but for one back home."""
        there = file_server({})
        home = file_server({"/a": Redirect(there.url("/b")), "/c": BODY})
        there.files["/b"] = Redirect(home.url("/c"))
        assert content(into_memory(home.url("/a"), auth=add_token)) == BODY
        assert sent(home) == [f"Bearer {TOKEN}"] * 2
        assert sent(there) == [None]

    def test_mirrors(self, file_server: Any) -> None:
        """The callable isn't called for a mirror of another origin."""
        home, mirror = file_server({}), file_server({"/a": BODY})
        download = into_memory(home.url("/a"), auth=add_token, mirrors=[mirror.url("/a")])
        assert content(download) == BODY
        assert (sent(home), sent(mirror)) == ([f"Bearer {TOKEN}"], [None])

    def test_connections(self, file_server: Any) -> None:
        """Downloads share a connection only if their callables are equal."""

        class Signer:
            def sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
                return request

        server = file_server({"/a": BODY})
        one, other, digest = Signer(), Signer(), HTTPDigestAuth("me", "pw")
        context = Context()
        auths = [one.sign, one.sign, other.sign, digest, digest, HTTPDigestAuth("me", "pw"), None]
        sessions = []
        for auth in auths:
            download = into_memory(server.url("/a"), auth=auth)
            download.context = context
            download()
            sessions.append(download.session)
        context.close()
        numbers = [sessions.index(session) for session in sessions]
        assert numbers == [0, 0, 2, 3, 3, 5, 6]

    def test_own_request(self, file_server: Any) -> None:
        """The callable may return a request of its own, with another query."""
        server = file_server({"/a": BODY})

        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request = request.copy()
            request.prepare_url(request.url, {"signature": "s3cret-signature"})
            return request

        assert content(into_memory(server.url("/a"), auth=sign)) == BODY
        assert server.paths == ["/a?signature=s3cret-signature"]

    def test_no_request(self, file_server: Any) -> None:
        """A callable that forgets to return the request is a bug that says so."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"), auth=lambda request: None)
        with pytest.raises(TypeError, match=r"^auth: it must return the request, not NoneType$"):
            download()

    @pytest.mark.parametrize("error", [ValueError("bug"), UnicodeError("bug"), KeyError("bug")])
    def test_bug(self, file_server: Any, error: Exception) -> None:
        """A bug of the callable is raised as it is, and nothing is tried again."""
        server = file_server({"/a": BODY})

        def broken(request: requests.PreparedRequest) -> requests.PreparedRequest:
            raise error

        download = into_memory(server.url("/a"), retry=quick(), auth=broken)
        with pytest.raises(type(error), match="bug"):
            download()
        assert server.count == 0

    @pytest.mark.parametrize("value", ["me:pw", ("me", "pw"), 5])
    def test_type(self, value: Any) -> None:
        """An `auth` that isn't callable is refused by the constructor; by the run if set later."""
        text = rf"^auth: must be a callable or None, not {type(value).__name__}$"
        with pytest.raises(TypeError, match=text):
            HttpDownload("http://h/", None, auth=value)
        with pytest.raises(TypeError, match=text):
            Factory(auth=value)
        download = HttpDownload("http://h/", None)
        download.auth = value
        assert "auth: must be a callable" in failure(download).reason

    def test_factory(self, file_server: Any, tmp_path: Path) -> None:
        """A factory gives its callable to each download by HTTP."""
        server = file_server({"/a": BODY})
        factory = Factory(type("Remote", (), {"username": "me", "password": "pw"}), auth=add_token)
        download = factory.build(server.url("/a"), tmp_path / "a")
        download()
        assert sent(server) == [f"Bearer {TOKEN}"]
        assert factory.build("ftp://h/a", tmp_path / "a").url == "ftp://h/a"

    def test_pipelined(self, file_server: Any) -> None:
        """Requests signed by the callable are pipelined, unless it registers a hook."""
        server = file_server(FILES)
        hooks = []

        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.url = f"{request.url}?signed"
            request.hooks["response"] += hooks
            return request

        assert pipelined(server, sign) > 0
        assert all(path.endswith("?signed") for path in server.paths)
        assert server.count >= 60
        hooks.append(lambda response, **options: None)
        assert pipelined(server, sign) == 0


class TestFailure:
    """What fails in the callable or its hook."""

    def test_network(self, file_server: Any) -> None:
        """A network error in the callable is retried, and doesn't count against the host."""
        server = file_server({"/a": BODY})
        tries = []

        def flaky(request: requests.PreparedRequest) -> requests.PreparedRequest:
            tries.append(1)
            if len(tries) < 3:
                raise requests.ConnectionError("refused at http://h/?token=s3cret")
            return request

        assert content(into_memory(server.url("/a"), retry=quick(), auth=flaky)) == BODY
        assert (len(tries), server.count) == (3, 1)
        tries.clear()
        error = failure(into_memory(server.url("/a"), auth=flaky), DownloadFailed)
        assert error.reason == "auth: the connection failed (ConnectionError)"
        assert error.transient
        assert error.auth_failed
        assert "s3cret" not in str(error.__cause__)

    @pytest.mark.parametrize(
        ("status", "kind", "transient"),
        [(401, NotAuthorized, False), (404, DownloadFailed, False), (503, DownloadFailed, True)],
    )
    def test_status(
        self, file_server: Any, status: int, kind: type[DownloadError], transient: bool
    ) -> None:
        """If the token server refuses, the download fails, but not with NotFound."""
        server = file_server({"/a": BODY}, faults={0: Status(status), 1: Status(status)})

        def by_requests(request: requests.PreparedRequest) -> requests.PreparedRequest:
            requests.get(server.url("/token?key=s3cret"), timeout=9).raise_for_status()
            return request

        def by_ourselves(request: requests.PreparedRequest) -> requests.PreparedRequest:
            token = into_memory(server.url("/token?key=s3cret"), retry=quick(total=0))
            content(token)
            return request

        for auth in (by_requests, by_ourselves):
            download = into_memory(server.url("/a"), auth=auth)
            error = failure(download, kind)
            assert error.reason.startswith("auth: ")
            assert str(status) in error.reason
            if auth is by_ourselves:
                assert server.url("/token") in error.reason
            assert "s3cret" not in str(error)
            assert (error.transient, error.download) == (transient, download)
            assert error.auth_failed
        assert server.paths == ["/token?key=s3cret"] * 2

    def test_no_json(self, file_server: Any) -> None:
        """If the callable can't parse a reply as JSON, that is a bug and not a network error."""
        server = file_server({"/a": BODY})

        def broken(request: requests.PreparedRequest) -> requests.PreparedRequest:
            requests.get(server.url("/a"), timeout=9).json()
            return request

        with pytest.raises(requests.exceptions.JSONDecodeError):
            into_memory(server.url("/a"), auth=broken)()

    def test_breaker(self, file_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token server that is down opens no circuit breaker of the host."""
        monkeypatch.setattr("pulpcore.plugin.download.futures.engine.breaker.SILENCE", 0)
        server = file_server({"/a": BODY})

        def down(request: requests.PreparedRequest) -> requests.PreparedRequest:
            raise requests.ConnectionError("down")

        downloads = [into_memory(server.url("/a"), auth=down) for _ in range(20)]
        last = into_memory(server.url("/a"))
        with Batch([*downloads, last], concurrent=1) as batch:
            failed = [plan.download for plan in batch() if plan.error is not None]
        assert failed == downloads
        assert last.status == 200

    def test_hook(self, file_server: Any, no_leaks: None) -> None:
        """If a hook raises, no connection stays open."""
        server = file_server({})

        def broken(reply: requests.Response, **options: Any) -> None:
            raise KeyError("bug")

        def auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.hooks["response"].append(broken)
            return request

        with pytest.raises(KeyError):
            into_memory(server.url("/a"), auth=auth)()


class TestDigest:
    def test_resume(self, running: Any) -> None:
        """Digest authentication with requests' own class works, and a broken body is resumed."""
        server = running(Digest, {"/a%20b": File(BODY, etag='"1"')}, faults={1: CutAfter(1000)})
        auth = HTTPDigestAuth("me", "s3cret-pass")
        download = into_memory(server.url("/a%20b?d=1"), retry=quick(), auth=auth)
        assert content(download) == BODY
        asked = [(bool(r.header("Authorization")), r.header("Range")) for r in server.requests]
        assert asked == [(False, None), (True, None), (True, "bytes=1000-")]
        assert server.requests[1].header("Cookie") == "visit=1"
        assert all("s3cret" not in (value or "") for value in sent(server))

    def test_threads(self, running: Any) -> None:
        """Threads that share an HTTPDigestAuth ask for one challenge each."""
        server = running(Digest, {"/a": BODY})
        auth = HTTPDigestAuth("me", "s3cret-pass")
        downloads = [into_memory(server.url("/a"), auth=auth) for _ in range(40)]
        with Batch(downloads, concurrent=4) as batch:
            assert [plan.result().status for plan in batch()] == [200] * 40
        assert 40 < server.count <= 44

    def test_wrong(self, running: Any) -> None:
        """A wrong password is refused once more, and the error doesn't show it."""
        server = running(Digest, {"/a": BODY})
        auth = HTTPDigestAuth("me", "s3cret-other")
        error = failure(into_memory(server.url("/a"), auth=auth), NotAuthorized)
        assert server.count == 2
        assert "s3cret" not in str(error)

    def test_closed_connection(self, running: Any) -> None:
        """A hook's request is sent again too if the server has closed the kept connection."""
        server = running(Digest, {"/a": BODY})
        auth = HTTPDigestAuth("me", "s3cret-pass")
        context = Context()
        server.faults = {2: CutAfter(0, whole=True)}
        for _ in range(2):
            download = into_memory(server.url("/a"), auth=auth)
            download.context = context
            assert content(download) == BODY
        context.close()
        assert server.count == 4

    def test_endless_refusal(self, running: Any) -> None:
        """The endless body of a refusal isn't read."""
        server = running(Digest, {"/a": BODY})
        server.faults = lambda index, request: (
            Status(401, {"WWW-Authenticate": 'Digest realm="files", nonce="abc", qop="auth", '
                         "algorithm=SHA-256", "Content-Length": str(1 << 40)}, b"x" * 100)
            if index == 0
            else None
        )  # fmt: skip
        auth = HTTPDigestAuth("me", "s3cret-pass")
        assert content(into_memory(server.url("/a"), auth=auth)) == BODY


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class TestBearer:
    def test_once(self, running: Any) -> None:
        """Sixteen threads fetch one token together, and one new token after a refusal."""
        server = running(Refusing, {"/a": BODY})
        threads = threading.Barrier(16, timeout=20)
        fetched = []

        def fetch() -> str:
            fetched.append(threading.get_ident())
            return server.valid

        auth = BearerAuth(fetch)
        context = Context()

        def work() -> None:
            for _ in range(2):
                threads.wait()
                download = into_memory(server.url("/a"), auth=auth)
                download.context = context
                assert content(download) == BODY
                if threads.wait() == 0:
                    server.valid = "s3cret-renewed"

        workers = [threading.Thread(target=work) for _ in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        context.close()
        assert len(fetched) == 2
        # Each thread asks twice, and is refused once at most.
        assert server.count <= 16 * 3

    def test_expiry(self, running: Any) -> None:
        """A token is fetched again before it expires, and not earlier."""
        server = running(Refusing, {"/a": BODY})
        clock = Clock()
        fetched = []

        def fetch() -> tuple[str, float]:
            fetched.append(clock.now)
            return TOKEN, 100

        auth = BearerAuth(fetch, clock=clock)
        for now in (0, 89, 91, 95, 180, 182):
            clock.now = now
            assert content(into_memory(server.url("/a"), auth=auth)) == BODY
        assert fetched == [0, 91, 182]
        assert server.count == 6

    def test_no_life(self, running: Any) -> None:
        """A token with a lifetime of 0 is used for the request that fetched it."""
        server = running(Refusing, {"/a": BODY})
        fetched = []

        def fetch() -> tuple[str, float]:
            fetched.append(1)
            return TOKEN, 0

        auth = BearerAuth(fetch)
        for _ in range(2):
            assert content(into_memory(server.url("/a"), auth=auth)) == BODY
        assert len(fetched) == 2

    def test_wrong_twice(self, running: Any) -> None:
        """A token that is refused twice fails the download, and no download asks a third time."""
        server = running(Refusing, {"/a": BODY})
        fetched = []

        def fetch() -> str:
            fetched.append(1)
            return "s3cret-wrong"

        auth = BearerAuth(fetch)
        error = failure(into_memory(server.url("/a"), retry=quick(), auth=auth), NotAuthorized)
        assert (len(fetched), server.count) == (2, 2)
        assert error.reason == "the server replied 401 Unauthorized: it wants other credentials"

    def test_failing_fetch(self, running: Any) -> None:
        """Threads that wait for a failing fetch get its error. The next download fetches again."""
        server = running(Refusing, {"/a": BODY})
        begun, go = threading.Event(), threading.Event()
        fetched = []

        def fetch() -> str:
            fetched.append(1)
            begun.set()
            assert go.wait(20)
            if len(fetched) == 1:
                raise requests.ConnectionError("token server s3cret")
            return TOKEN

        auth = BearerAuth(fetch)
        entered: list[int] = []
        errors: list[str] = []

        def enter(request: requests.PreparedRequest) -> requests.PreparedRequest:
            entered.append(1)
            return auth(request)

        def work() -> None:
            errors.append(failure(into_memory(server.url("/a"), auth=enter)).reason)

        workers = [threading.Thread(target=work) for _ in range(3)]
        workers[0].start()
        assert begun.wait(20)
        for worker in workers[1:]:
            worker.start()
        (fetch_once,) = auth._running._making.values()
        while len(entered) < 3 or len(fetch_once._waiting) < 2:
            threading.Event().wait(0.01)
        go.set()
        for worker in workers:
            worker.join()
        assert errors == ["auth: the connection failed (ConnectionError)"] * 3
        assert len(fetched) == 1
        assert content(into_memory(server.url("/a"), auth=auth)) == BODY
        assert len(fetched) == 2

    def test_shutdown(self, running: Any) -> None:
        """If a fetch ends because its batch does, no download of another batch fails."""
        server = running(Refusing, {"/a": BODY, "/token": BODY})
        hold = threading.Event()
        begun = threading.Event()
        fetched = []

        def fetch() -> str:
            fetched.append(1)
            begun.set()
            if len(fetched) == 1:
                assert hold.wait(20)
                raise DownloadFailed("the batch was shut down")
            return TOKEN

        auth = BearerAuth(fetch)
        first = Batch([into_memory(server.url("/a"), auth=auth)], concurrent=1)
        waits = threading.Thread(target=lambda: [plan.error for plan in first()])
        waits.start()
        assert begun.wait(20)
        other = into_memory(server.url("/a"), auth=auth)
        runs = threading.Thread(target=other)
        runs.start()
        stops = threading.Thread(target=first.shutdown)
        stops.start()
        while not first.is_shutdown:
            threading.Event().wait(0.01)
        hold.set()
        for thread in (waits, runs, stops):
            thread.join()
        assert (other.status, len(fetched)) == (200, 2)

    @pytest.mark.parametrize("how", ["shutdown", "total"])
    def test_waiting_is_cut_short(self, running: Any, how: str) -> None:
        """A download that waits for another's fetch ends by its own shutdown or time limit."""
        server = running(Refusing, {"/a": BODY})
        begun, go = threading.Event(), threading.Event()

        def fetch() -> str:
            begun.set()
            assert go.wait(60)
            return TOKEN

        auth = BearerAuth(fetch)
        first = into_memory(server.url("/a"), auth=auth)
        fetches = threading.Thread(target=first)
        fetches.start()
        try:
            assert begun.wait(20)
            limit = Timeout(total=0.2) if how == "total" else None
            waits = into_memory(server.url("/a"), auth=auth, timeout=limit)
            other = Batch([waits], concurrent=1)
            errors: list[BaseException | None] = []
            batch = threading.Thread(target=lambda: errors.extend(plan.error for plan in other()))
            batch.start()
            if how == "shutdown":
                while (
                    not (making := list(auth._running._making.values())) or not making[0]._waiting
                ):
                    threading.Event().wait(0.01)
                other.shutdown()
            batch.join(20)
            assert not batch.is_alive()
        finally:
            go.set()
            fetches.join()
        (error,) = errors
        assert isinstance(error, DownloadFailed)
        assert ("shut down" if how == "shutdown" else "0.2") in error.reason
        assert first.status == 200

    def test_itself(self, running: Any) -> None:
        """A fetch that uses the BearerAuth itself raises a clear error instead of a deadlock."""
        server = running(Refusing, {"/a": BODY})
        auth = BearerAuth(lambda: content(into_memory(server.url("/a"), auth=auth)).decode())
        with pytest.raises(RuntimeError, match="same BearerAuth"):
            into_memory(server.url("/a"), auth=auth)()

    @pytest.mark.parametrize("value", [b"token", None, (b"token", 5), ("token",)])
    def test_no_token(self, value: Any) -> None:
        """A fetch function that doesn't return a str raises a clear error."""
        with pytest.raises(TypeError, match=r"^fetch: must return a str, not "):
            into_memory("http://127.0.0.1:1/a", auth=BearerAuth(lambda: value))()

    @pytest.mark.parametrize("value", [("token", None), ("token", "300"), ("token", True)])
    def test_no_seconds(self, value: Any) -> None:
        """A fetch function whose lifetime isn't a number of seconds raises a clear error."""
        with pytest.raises(TypeError, match=r"^fetch: the seconds must be a number, not "):
            into_memory("http://127.0.0.1:1/a", auth=BearerAuth(lambda: value))()

    def test_types(self) -> None:
        """Arguments of a wrong type are refused by name."""
        with pytest.raises(TypeError, match=r"^fetch: must be a callable or None, not str$"):
            BearerAuth(TOKEN)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^user: "):
            BearerAuth(user="me:pw")  # type: ignore[arg-type]

    def test_session(self, running: Any) -> None:
        """A requests.Session can use a BearerAuth with a function."""
        server = running(Refusing, {"/a": BODY})
        with requests.Session() as session:
            session.auth = BearerAuth(lambda: TOKEN)
            assert session.get(server.url("/a"), timeout=9).content == BODY

    def test_pipelined(self, running: Any) -> None:
        """Requests with tokens are pipelined. One that a train refuses is sent again alone."""
        server = running(Refusing, FILES)
        fetched = []

        def fetch() -> str:
            fetched.append(1)
            return server.valid

        def renew(index: int, request: Request) -> None:
            if index == 30:
                server.valid = "s3cret-renewed"

        server.faults = renew
        assert pipelined(server, BearerAuth(fetch)) > 0
        assert len(fetched) == 2
        # At most one train is refused, whose requests are asked again.
        assert 60 < server.count <= 60 + 8


class TestRegistry:
    def test_scopes(self, running: Any) -> None:
        """16 threads fetch one token for each scope, and later downloads reuse it."""
        paths = [f"/v2/{name}/blobs/{number}" for number in range(20) for name in ("a", "b")]
        server = running(Registry, dict.fromkeys(paths, BODY))
        auth = BearerAuth()
        downloads = [into_memory(server.url(path), auth=auth) for path in paths]
        with Batch(downloads, concurrent=16) as batch:
            assert {plan.result().status for plan in batch()} == {200}
        assert server.asked == {f"repository:{name}:pull,push": 1 for name in ("a", "b")}
        count = server.count
        for path in paths[:4]:
            assert content(into_memory(server.url(path), auth=auth)) == BODY
        assert server.count == count + 4
        server.valid.clear()
        assert content(into_memory(server.url(paths[0]), auth=auth)) == BODY
        assert server.asked.total() == 3

    @pytest.mark.parametrize("whose", ["download", "batch"])
    def test_limits(self, running: Any, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
        """The limits of a download, and of its batch, hold for the request for a token, too."""
        paths = [f"/v2/{name}/1" for name in "abcdef"]
        server = running(Registry, dict.fromkeys(paths, BODY))
        opened = Opened.watch(monkeypatch)
        auth, limits = BearerAuth(), Limits(per_host=1)
        downloads = [into_memory(server.url(path), auth=auth) for path in paths]
        if whose == "download":
            for download in downloads:
                download.limits = limits
        of_batch = limits if whose == "batch" else None
        with Batch(downloads, concurrent=4, limits=of_batch) as batch:
            assert {plan.result().status for plan in batch()} == {200}
        assert server.asked.total() == 6
        assert opened.most == 1

    def test_session(self, running: Any) -> None:
        """A requests.Session can use a BearerAuth without a function, with our default settings."""
        server = running(Registry, {"/v2/a/1": BODY})
        with requests.Session() as session:
            session.auth = BearerAuth()
            assert session.get(server.url("/v2/a/1"), timeout=9).content == BODY

    def test_expiry(self, running: Any) -> None:
        """A token that is about to expire isn't sent. Without `expires_in` it lasts a minute.

        A number that is too large for a float is no bug of the library.
        """
        server = running(Registry, {"/v2/a/1": BODY})
        clock = Clock()
        auth = BearerAuth(clock=clock)
        asked = []
        for life in (None, 0, "soon", 600, 10**400):
            server.life = {} if life is None else {"expires_in": life}
            clock.now += 1000
            for _ in range(2):
                assert content(into_memory(server.url("/v2/a/1"), auth=auth)) == BODY
            clock.now += 55
            assert content(into_memory(server.url("/v2/a/1"), auth=auth)) == BODY
            asked.append(server.asked.total())
        assert asked == [2, 4, 6, 7, 8]

    def test_user(self, running: Any) -> None:
        """The credentials of the download go to a realm of its own origin."""
        server = running(Registry, {"/v2/a/1": BODY})
        server.user = ("me", "pw")
        for user, auth in (
            (User("me", "pw"), BearerAuth()),
            (User("you", "other"), BearerAuth(user=("me", "pw"))),
        ):
            assert content(into_memory(server.url("/v2/a/1"), user=user, auth=auth)) == BODY
        url = server.url("/v2/a/1").replace("//", "//me:pw@")
        assert content(into_memory(url, auth=BearerAuth())) == BODY
        assert failure(into_memory(server.url("/v2/a/1"), auth=BearerAuth()), NotAuthorized)

    def test_elsewhere(
        self,
        running: Any,
        tls: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A realm on another origin gets only the object's own credentials: no user, no netrc."""
        (tmp_path / "netrc").write_text("default login me password pw\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        realm = running(Registry, {}, tls=tls.server())
        server = running(Registry, {"/v2/a/1": BODY}, realm=realm.url("/token"), tls=tls.server())
        server.valid = realm.valid
        certificate = trust(tls.ca, tls.client)
        for auth in (BearerAuth(), BearerAuth(user=("you", "pw2"))):
            url = server.url("/v2/a/1")
            download = into_memory(url, auth=auth, user=("me", "pw"), ssl=certificate)
            assert content(download) == BODY
        assert sent(realm) == [None, basic("you", "pw2")]

    def test_client_certificate(self, running: Any, tls: Any) -> None:
        """A client certificate goes to a realm of the registry's own origin, and to no other."""
        options = {"tls": tls.server(client_ca=tls.ca)}
        realm = running(Registry, {}, **options)
        server = running(Registry, {"/v2/a/1": BODY}, **options)
        url, certificate = server.url("/v2/a/1"), trust(tls.ca, tls.client)
        assert content(into_memory(url, auth=BearerAuth(), ssl=certificate)) == BODY
        server.realm, server.valid = realm.url("/token"), realm.valid
        error = failure(into_memory(url, auth=BearerAuth(), ssl=certificate), DownloadError)
        assert error.reason.startswith("auth: no token came")
        assert realm.count == 0

    def test_proxy(self, running: Any, proxy: Any) -> None:
        """A token is fetched by the proxy of the download."""
        server = running(Registry, {"/v2/a/1": BODY}, realm="http://h.example.test/token")
        gate = proxy(hosts={"h.example.test:80": server.port})
        url = "http://h.example.test/v2/a/1"
        assert content(into_memory(url, auth=BearerAuth(), proxy_url=gate.url())) == BODY
        assert len(gate.requests) == 3

    def test_public_only(self, running: Any) -> None:
        """With `public_only`, a token is fetched only from a public address."""
        server = running(Registry, {"/v2/a/1": BODY})
        download = into_memory(server.url("/v2/a/1"), auth=BearerAuth())

        def forbid(index: int, request: Request) -> None:
            download.public_only = True

        server.faults = forbid
        assert "public" in failure(download, DownloadFailed).reason
        assert server.paths == ["/v2/a/1"]

    def test_origins(self, running: Any, tls: Any) -> None:
        """Two registries that name the same realm get a token each."""
        realm = running(Registry, {}, tls=tls.server())
        auth, certificate = BearerAuth(), trust(tls.ca)
        for _ in range(2):
            server = running(Registry, {"/v2/a/1": BODY}, realm=realm.url("/token"))
            server.valid = realm.valid
            download = into_memory(server.url("/v2/a/1"), auth=auth, ssl=certificate)
            assert content(download) == BODY
        assert realm.asked.total() == 2

    def test_untrusted_realm(self, running: Any, tls: Any) -> None:
        """A realm must use https. With a user, the server must use https, too."""
        realm = running(Registry, {})
        server = running(Registry, {"/v2/a/1": BODY}, realm=realm.url("/token"))
        error = failure(into_memory(server.url("/v2/a/1"), auth=BearerAuth()), NotAuthorized)
        assert "must be asked by https" in error.reason
        server.realm = "https://127.0.0.1:1/token"
        auth = BearerAuth(user=("me", "pw"))
        error = failure(into_memory(server.url("/v2/a/1"), auth=auth), NotAuthorized)
        assert "not with a user" in error.reason
        assert (realm.count, server.count) == (0, 2)

    def test_wrong_twice(self, running: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Invalid tokens fail the download, and no message shows them."""
        caplog.set_level(logging.DEBUG)
        server = running(Registry, {"/v2/a/1": BODY})
        server.wrong = True
        auth = BearerAuth(user=("me", "s3cret-password"))
        download = into_memory(server.url("/v2/a/1"), auth=auth)
        error = failure(download, NotAuthorized)
        assert (server.asked.total(), server.count) == (1, 3)
        shown = f"{error}{error!r}{auth!r}{download!r}{download.context!r}{error.__cause__!r}"
        assert "s3cret" not in shown + caplog.text

    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            (Status(503, {"Retry-After": "7"}), "503"),
            (Status(200, (), b"no json"), "its reply has no token"),
            (Status(200, (), b"[" * 100_000), "its reply has no token"),
            (Status(200, (), b"[]"), "its reply has no token"),
            (Status(200, (), b"{}"), "its reply has no token"),
            (Status(200, (), b'{"token": "s3cret\\n"}'), "its reply has no token"),
        ],
    )
    def test_bad_realm(self, running: Any, reply: Status, reason: str) -> None:
        """A failure at the realm is reported as such. The download retries it if that may help."""
        server = running(Registry, {"/v2/a/1": BODY})
        server.faults = lambda index, request: reply if request.path == "/token" else None
        error = failure(into_memory(server.url("/v2/a/1"), auth=BearerAuth()), DownloadFailed)
        assert error.reason.startswith("auth: no token came from the server that the host names")
        assert reason in error.reason
        assert error.auth_failed
        assert (error.transient, error.retry_after) == (
            (True, 7) if reply.status == 503 else (False, None)
        )
        assert "s3cret" not in str(error)
        server.faults = {1: Status(503)}
        server.count = 0
        download = into_memory(server.url("/v2/a/1"), retry=quick(), auth=BearerAuth())
        assert content(download) == BODY

    @pytest.mark.parametrize(
        "challenge",
        [
            'Basic realm="files"',
            "Bearer",
            'Bearer error="invalid_token"',
            'Bearer realm="ftp://h/",service="s"',
            'Bearer realm="https://h/s3cret-password",service="s"',
            '=,"',
        ],
    )
    def test_no_challenge(self, running: Any, challenge: str) -> None:
        """A 401 whose challenge can't be answered fails the download with NotAuthorized."""
        server = running(Registry, {"/v2/a/1": BODY})
        server.challenge = challenge
        download = into_memory(server.url("/v2/a/1"), auth=BearerAuth())
        download.headers["Cookie"] = "session=s3cret-password"
        assert "wants credentials" in failure(download, NotAuthorized).reason
        assert server.count == 1

    def test_many_scopes(self, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The number of tokens that are kept is limited."""
        monkeypatch.setattr("pulpcore.plugin.download.futures.auth._TOKENS", 4)
        paths = [f"/v2/{number}/a" for number in range(20)]
        server = running(Registry, dict.fromkeys(paths, BODY))
        auth = BearerAuth()
        context = Context()
        for path in paths:
            download = into_memory(server.url(path), auth=auth)
            download.context = context
            download()
        context.close()
        assert len(auth._fetches) <= 5
        assert len(auth._challenges) <= 6

    def test_no_service(self, file_server: Any) -> None:
        """A challenge may consist of a realm only. The reply may call the token `access_token`."""
        server = file_server({"/token": b'{"access_token": "s3cret-a"}', "/a": BODY})
        server.faults = lambda index, request: (
            Status(401, {"WWW-Authenticate": f"bearer REALM={server.url('/token')}"})
            if request.path == "/a" and not request.header("Authorization")
            else None
        )
        assert content(into_memory(server.url("/a"), auth=BearerAuth())) == BODY
        assert server.paths == ["/a", "/token", "/a"]


def test_signed_urls(file_server: Any) -> None:
    """A resume asks the first URL again, which redirects to a URL with a fresh signature."""
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    store = file_server({"/a": File(BODY, etag='"1"', last_modified=date)})

    def expire(index: int, request: Request) -> CutAfter | Status | None:
        if request.target != f"/a?signature={index}":
            return Status(403)
        return CutAfter(1000) if index == 0 else None

    store.faults = expire
    home = file_server({})
    home.faults = lambda index, request: Status(
        302, {"Location": store.url(f"/a?signature={index}")}
    )
    download = into_memory(home.url("/a"), retry=quick(), auth=add_token)
    assert content(download) == BODY
    assert store.paths == ["/a?signature=0", "/a?signature=1"]
    assert store.requests[1].header("Range") == "bytes=1000-"
    assert (sent(home), sent(store)) == ([f"Bearer {TOKEN}"] * 2, [None] * 2)


class TestPickle:
    def test_travels(self) -> None:
        """An importable callable can be pickled. So can a BearerAuth, without its tokens."""
        download = HttpDownload("http://h/", None, auth=add_token)
        assert pickle.loads(pickle.dumps(download)).auth is add_token
        auth = BearerAuth(the_token, user=("me", "pw"))
        auth(requests.Request("GET", "http://h/").prepare())
        copy = pickle.loads(pickle.dumps(auth))
        assert vars(copy).keys() == vars(auth).keys()
        assert not copy._fetches
        assert download.clone().auth is add_token

    def test_twin(self) -> None:
        """Chunks of a batch that reach one worker process share one object there."""
        auth, packer, twins = BearerAuth(the_token), Packer(), {}
        found = []
        for _ in range(2):
            chunk = packer.pack([check(HttpDownload("http://h/", None, auth=auth))] * 2)
            found += [download.auth for specs in unpack(chunk, twins) for download, _ in specs]
        assert len(set(map(id, found))) == 1
        assert isinstance(found[0], BearerAuth)

    @pytest.mark.parametrize("auth", [lambda request: request, HTTPDigestAuth("me", "s3cret")])
    def test_refused(self, auth: Any) -> None:
        """An `auth` that can't be pickled raises an error that names the attribute."""
        download = HttpDownload("http://h/", None, auth=auth)
        with pytest.raises(ValueError, match=r"http://h/ can't be sent .*: its attribute auth: "):
            Packer().pack([check(download)])

    def test_process(self, running: Any, tmp_path: Path) -> None:
        """Downloads in a worker process authenticate by the callable that was pickled with them."""
        server = running(Refusing, {"/a": BODY})
        downloads = [
            HttpDownload(server.url("/a"), tmp_path / str(number), auth=auth)
            for number, auth in enumerate([add_token, BearerAuth(the_token)])
        ]
        with (
            ProcessPoolExecutor(1, get_context("spawn")) as executor,
            Batch(downloads, executor=executor) as batch,
        ):
            assert [plan.result().status for plan in batch()] == [200, 200]


def test_cancelled_in_auth(file_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that is cancelled while ``auth`` runs doesn't look up its host any more."""
    server = file_server({"/a": BODY})
    looked: list[object] = []

    def auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
        token = current()
        assert token is not None
        token.cancel("shut down")
        return request

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *args: looked.append(args))
        error = failure(into_memory(server.url("/a"), quick(), auth=auth), DownloadFailed)
    assert error.reason == "shut down"
    assert not looked
