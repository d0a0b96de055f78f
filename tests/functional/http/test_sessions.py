"""Sessions and connections: what is shared, how many there are, and who ends them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from http_tools import content, failure, into_memory, quick, record, trust
from servers.files import File, Hold, Redirect
from servers.message import basic
from servers.raw import Close, Cut, Loop, Recv, Reset, Send, Signal, Wait, reply, serve

from pulpcore.plugin.download.futures import SSL, Batch, DownloadFailed, User
from pulpcore.plugin.download.futures.context import Context

BODY = b"content " * 1000
URL = "http://127.0.0.1:1/"


def sharing(context: Context, url: str, **options: Any) -> Any:
    """A download into memory with that context."""
    download = into_memory(url, **options)
    download.context = context
    return download


class TestKey:
    """One session for each destination and each set of settings."""

    @pytest.mark.parametrize(
        "options",
        [
            {"url": "http://127.0.0.1:2/"},
            {"url": "http://localhost:1/"},
            {"url": "https://127.0.0.1:1/"},
            {"url": "http://me@127.0.0.1:1/", "user": User("me")},
            {"user": User("me", "secret")},
            {"user": User("me", "another")},
            {"user": User("me")},
            {"proxy_url": "http://127.0.0.1:3"},
            {"proxy_url": "http://me:secret@127.0.0.1:3"},
            {"ssl": SSL(validation=False)},
            {"ssl": SSL(ca_certificate=__file__)},
            {"ssl": SSL(client_certificate="{both}")},
            {"ssl": SSL(client_certificate="{certificate}", client_key="{key}")},
        ],
        ids=str,
    )
    def test_differs(self, tls: Any, options: dict[str, Any]) -> None:
        """Whatever differs makes another session; the same makes the same."""
        options = dict(options)
        url = options.pop("url", URL)
        context = Context()
        plain = sharing(context, URL).session
        first, second = (sharing(context, url, **options) for _ in range(2))
        assert isinstance(first.session, requests.Session)
        assert first.session is second.session
        assert first.session is not plain
        assert sharing(context, URL).session is plain
        assert sharing(Context(), URL).session is not plain
        context.close()

    @pytest.mark.parametrize(
        "url", ["HTTP://127.0.0.1:1/x?y=z#f", "http://127.0.0.1:1", "http://127.0.0.1:1/a/b"]
    )
    def test_same(self, url: str) -> None:
        """The path and the case of a URL don't matter."""
        context = Context()
        assert sharing(context, url).session is sharing(context, URL).session

    def test_standard_ports(self) -> None:
        """A port that goes without saying is the same when it is said; so is a host's case."""
        context = Context()
        for one, two in [
            ("http://files.example/", "http://FILES.example:80/"),
            ("https://files.example/", "https://files.example:443/"),
        ]:
            assert sharing(context, one).session is sharing(context, two).session

    def test_userinfo_is_a_user(self) -> None:
        """Userinfo makes the same session as the same user."""
        context = Context()
        one = sharing(context, "http://me:secret@127.0.0.1:1/")
        assert one.session is sharing(context, URL, user=User("me", "secret")).session

    def test_many_threads(self) -> None:
        """Threads that ask at once get the same session."""
        context = Context()
        barrier = threading.Barrier(32)

        def ask(_: int) -> requests.Session:
            barrier.wait()
            return sharing(context, URL).session

        with ThreadPoolExecutor(32) as pool:
            assert len({id(session) for session in pool.map(ask, range(32))}) == 1

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "", "http://"])
    def test_bad_url(self, url: str) -> None:
        """There is no session for a URL of another kind."""
        with pytest.raises(ValueError, match=r"scheme|host"):
            _ = into_memory(url).session

    def test_failed_for_all(self, tls: Any, tmp_path: Any) -> None:
        """A session that can't be made is an error for each that asks, and can be made later."""
        pem = tmp_path / "ca.pem"
        pem.write_text("nonsense")
        context = Context()
        settings = SSL(ca_certificate=str(pem))
        barrier = threading.Barrier(8)

        def ask(_: int) -> str:
            barrier.wait()
            with pytest.raises(ValueError, match="ca_certificate") as caught:
                _ = sharing(context, "https://127.0.0.1:1/", ssl=settings).session
            return str(caught.value)

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(ask, range(8)))) == 1
        pem.write_bytes(tls.ca.read_bytes())
        assert sharing(context, "https://127.0.0.1:1/", ssl=settings).session


class TestConnections:
    def test_keep_alive(self, file_server: Any) -> None:
        """Downloads one after the other share a connection, errors and redirects included."""
        files = {"/a": BODY, "/b": Redirect("/a"), "/c": b"", "/d": File(b"x" * 9, status=503)}
        server = file_server(files)
        context = Context()
        for path in ("/a", "/b", "/c", "/a", "/none", "/d", "/a"):
            download = sharing(context, server.url(path))
            if path in ("/none", "/d"):
                failure(download)
            else:
                download()
        assert server.connections == 1
        context.close()
        server.until(lambda: server.open_connections == 0)

    @pytest.mark.parametrize("threads", [1, 4, 16])
    def test_no_more_than_threads(self, file_server: Any, tls: Any, threads: int) -> None:
        """N downloads from one host on C threads open at most C connections."""
        server = file_server({"/a": BODY, "/b": Redirect("/a")}, tls=tls.server())
        urls = [server.url("/b" if n % 3 else "/a") for n in range(20 * threads)]
        settings = trust(tls.ca)
        downloads = (into_memory(url, ssl=settings) for url in urls)
        with Batch(downloads, concurrent=threads) as batch:
            for plan in batch():
                assert plan.result().writer.getvalue() == BODY
        assert server.connections <= threads
        server.until(lambda: server.open_connections == 0)

    def test_all_threads_at_once(self, file_server: Any) -> None:
        """C threads do have C connections, none waits for another's."""
        release = threading.Event()
        server = file_server({"/a": BODY}, faults=lambda index, request: Hold(release))
        with Batch([into_memory(server.url("/a")) for _ in range(12)], concurrent=12) as batch:
            waiter = threading.Thread(
                target=lambda: (server.until(lambda: server.count == 12), release.set())
            )
            waiter.start()
            for plan in batch():
                plan.result()
            waiter.join()
        assert server.most_connections == 12

    @pytest.mark.parametrize(
        "options",
        [
            [{"user": User("me", "secret")}, {"user": User("you", "word")}],
            [{"user": User("me", "secret")}, {}],
            [{"user": User("me", "secret")}, {"user": User("me")}],
        ],
    )
    def test_credentials_share_none(self, file_server: Any, options: list[Any]) -> None:
        """Downloads whose credentials differ share no connection."""
        server = file_server({"/a": BODY})
        context = Context()
        for option in options * 2:
            assert content(sharing(context, server.url("/a"), **option)) == BODY
        assert server.connections == len(options)
        context.close()

    @pytest.mark.parametrize(
        "data",
        [
            reply(headers={"Connection": "close"}, body=BODY),
            reply(headers={"connection": "Keep-Alive, Close"}, body=BODY),
            reply(body=BODY, version="HTTP/1.0"),
        ],
    )
    def test_server_that_closes(self, raw_server: Any, data: bytes) -> None:
        """A connection that the server ends isn't used again."""
        server = raw_server([[Recv(), Send(data)]])
        context = Context()
        for _ in range(3):
            assert content(sharing(context, server.url())) == BODY
        assert server.connections == 3
        context.close()

    def test_kept_by_the_old(self, raw_server: Any) -> None:
        """HTTP/1.0 keeps a connection that it says it keeps."""
        data = reply(headers={"Connection": "keep-alive"}, body=BODY, version="HTTP/1.0")
        server = raw_server([serve(data)])
        context = Context()
        for _ in range(3):
            assert content(sharing(context, server.url())) == BODY
        assert server.connections == 1
        context.close()

    @pytest.mark.parametrize("extra", [b"x", reply(body=b"another")])
    def test_extra_bytes(self, raw_server: Any, extra: bytes) -> None:
        """What comes behind a body is never taken for the next reply."""
        server = raw_server([serve(reply(body=BODY) + extra)])
        context = Context()
        for _ in range(3):
            assert content(sharing(context, server.url())) == BODY
        assert server.connections == 3
        context.close()

    def test_extra_bytes_later(self, raw_server: Any) -> None:
        """Nor is what comes later, while the connection is kept."""
        read, sent = threading.Event(), threading.Event()
        script = [Recv(), Send(reply(body=BODY)), Wait(read), Send(b"HTTP/1.1 200"), Signal(sent)]
        server = raw_server([[*script, Recv()], serve(reply(body=BODY))])
        context = Context()
        assert content(sharing(context, server.url())) == BODY
        read.set()
        assert sent.wait(30)
        assert content(sharing(context, server.url())) == BODY
        assert server.connections == 2
        context.close()


class TestStale:
    """A connection that was kept may be closed at any time, and that is no fault."""

    @pytest.mark.parametrize("end", [Close(), Cut(), Reset()])
    def test_closed_at_the_next_request(self, raw_server: Any, end: Any) -> None:
        """Closed in answer to the next request: it is sent again, without an attempt spent."""
        whole = reply(body=BODY)
        server = raw_server([[Recv(), Send(whole), Recv(), end], serve(whole)])
        context = Context()
        content(sharing(context, server.url()))
        download = sharing(context, server.url())
        events = record(download)
        assert content(download) == BODY
        assert "ERROR" not in [event.NAME for event in events]
        assert server.connections == 2
        context.close()

    def test_closed_by_a_proxy(self, raw_server: Any) -> None:
        """A proxy may close its connections as well."""
        whole = reply(body=BODY)
        server = raw_server([[Recv(), Send(whole), Recv(), Close()], serve(whole)])
        context = Context()
        for _ in range(2):
            download = sharing(context, "http://files.example/a")
            download.proxy_url = server.url("")
            events = record(download)
            assert content(download) == BODY
            assert "ERROR" not in [event.NAME for event in events]
        assert server.connections == 2
        context.close()

    @pytest.mark.parametrize("end", [Close(), Reset()])
    def test_closed_while_idle(self, raw_server: Any, end: Any) -> None:
        """Closed while nobody used it: another one is used."""
        server = raw_server([[Recv(), Send(reply(body=BODY)), end]])
        context = Context()
        for expected in range(1, 5):
            assert content(sharing(context, server.url())) == BODY
            server.until(lambda: server.open_connections == 0)
            assert server.connections == expected
        context.close()

    def test_new_connections_are_no_excuse(self, raw_server: Any) -> None:
        """A new connection that is closed without a reply is an error, and not asked again."""
        server = raw_server([[Recv()]])
        failure(into_memory(server.url()), DownloadFailed)
        assert server.connections == 1

    def test_many(self, raw_server: Any) -> None:
        """All that were kept may be stale, however many there are."""
        count = 40
        whole = reply(body=BODY)
        together = threading.Barrier(count)

        def answer(request: Any) -> bytes:
            together.wait(20)
            return whole

        server = raw_server(
            lambda index: [Recv(), Send(answer), Recv(), Close()] if index < count else serve(whole)
        )
        context = Context()
        downloads = [into_memory(server.url()) for _ in range(count)]
        with Batch(downloads, concurrent=count, context=context) as batch:
            for plan in batch():
                plan.result()
        assert server.connections == count
        assert content(sharing(context, server.url())) == BODY
        context.close()


class TestEnd:
    """Whoever made the context ends it."""

    def test_of_its_own(self, file_server: Any, no_leaks: None) -> None:
        """A download alone leaves no connection open."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        for _ in range(2):
            content(download)
            server.until(lambda: server.open_connections == 0)
        failure(into_memory(server.url("/none")))
        server.until(lambda: server.open_connections == 0)

    def test_given(self, file_server: Any, no_leaks: None) -> None:
        """A context that was given stays open until its owner closes it."""
        server = file_server({"/a": BODY})
        context = Context()
        content(sharing(context, server.url("/a")))
        with Batch([into_memory(server.url("/a"))], context=context) as batch:
            list(batch())
        content(sharing(context, server.url("/a")))
        assert (server.connections, server.open_connections) == (1, 1)
        context.close()
        context.close()
        server.until(lambda: server.open_connections == 0)
        content(sharing(context, server.url("/a")))
        assert server.connections == 2
        context.close()

    def test_of_a_batch(self, file_server: Any, no_leaks: None) -> None:
        """A batch ends its own context."""
        server = file_server({"/a": BODY})
        with Batch([into_memory(server.url("/a")) for _ in range(9)]) as batch:
            list(batch())
        server.until(lambda: server.open_connections == 0)

    def test_failed_session(self, file_server: Any, tmp_path: Any, no_leaks: None) -> None:
        """A context in which a session couldn't be made can be closed."""
        (tmp_path / "ca").write_text("nonsense")
        context = Context()
        settings = SSL(ca_certificate=str(tmp_path / "ca"))
        failure(sharing(context, "https://127.0.0.1:1/", ssl=settings), DownloadFailed)
        context.close()


class TestEnvironment:
    def test_read_once(self, file_server: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment is looked at once for a session; a new context looks again."""
        server, gate = file_server({"/a": BODY}), proxy()
        context = Context()
        content(sharing(context, server.url("/a")))
        monkeypatch.setenv("http_proxy", gate.url(""))
        content(sharing(context, server.url("/a")))
        assert gate.connections == 0
        content(into_memory(server.url("/a")))
        assert gate.connections == 1
        context.close()

    def test_session_of_its_own(
        self, file_server: Any, proxy: Any, tls: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever uses the session gets the same settings, and no second look either."""
        server, gate = file_server({"/a": BODY}, tls=tls.server()), proxy()
        context = Context()
        session = sharing(context, server.url("/a"), ssl=trust(tls.ca)).session
        monkeypatch.setenv("https_proxy", gate.url(""))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.other_ca))
        assert session.get(server.url("/a")).content == BODY
        assert gate.connections == 0
        context.close()

    def test_netrc_once(
        self, file_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        """The netrc file is read once for a session, NETRC included."""
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login net password rc")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        server = file_server({"/a": BODY})
        context = Context()
        content(sharing(context, server.url("/a")))
        (tmp_path / "netrc").unlink()
        content(sharing(context, server.url("/a")))
        assert [r.header("Authorization") for r in server.requests] == [basic("net", "rc")] * 2
        context.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(file_server: Any) -> None:
    """A forked child shares no connection, and the parent goes on with its own."""
    server = file_server({"/a": BODY})
    context = Context()
    download = sharing(context, server.url("/a"))
    assert content(download) == BODY
    read, write = os.pipe()
    child = os.fork()
    if not child:
        # Nothing may leave here but by _exit.
        try:
            os.write(write, b"well" if content(download) == BODY else b"wrong")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"well"
    os.waitpid(child, 0)
    assert server.connections == 2
    for _ in range(2):
        assert content(download) == BODY
    assert server.connections == 2
    context.close()


def test_retry_uses_a_new_connection(raw_server: Any) -> None:
    """What broke in the middle of a reply isn't used again."""
    whole = reply(body=BODY)
    script = [Loop([Recv(), Send(whole)], times=2), Recv(), Send(whole[:-5])]
    server = raw_server([script, serve(whole)])
    context = Context()
    for _ in range(4):
        download = sharing(context, server.url())
        download.retry = quick()
        assert content(download) == BODY
    assert server.connections == 2
    context.close()
