"""Tests of sessions and connections: what is shared, how many exist, and who closes them."""

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
    """Make a download into memory with that context."""
    download = into_memory(url, **options)
    download.context = context
    return download


class TestKey:
    """There is one session for each destination and set of settings."""

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
        """Downloads get different sessions if any setting differs, and otherwise the same."""
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
        """The path and the case of a URL make no difference to its session."""
        context = Context()
        assert sharing(context, url).session is sharing(context, URL).session

    def test_standard_ports(self) -> None:
        """URLs with and without the standard port, or in different case, share a session."""
        context = Context()
        for one, two in [
            ("http://files.example/", "http://FILES.example:80/"),
            ("https://files.example/", "https://files.example:443/"),
        ]:
            assert sharing(context, one).session is sharing(context, two).session

    def test_userinfo_is_a_user(self) -> None:
        """Userinfo in the URL and the same `user` setting share a session."""
        context = Context()
        one = sharing(context, "http://me:secret@127.0.0.1:1/")
        assert one.session is sharing(context, URL, user=User("me", "secret")).session

    def test_many_threads(self) -> None:
        """Threads that ask for a session at the same time get the same one."""
        context = Context()
        barrier = threading.Barrier(32)

        def ask(_: int) -> requests.Session:
            barrier.wait()
            return sharing(context, URL).session

        with ThreadPoolExecutor(32) as pool:
            assert len({id(session) for session in pool.map(ask, range(32))}) == 1

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "", "http://"])
    def test_bad_url(self, url: str) -> None:
        """A URL that isn't HTTP has no session."""
        with pytest.raises(ValueError, match=r"scheme|host"):
            _ = into_memory(url).session

    def test_failed_for_all(self, tls: Any, tmp_path: Any) -> None:
        """If a session can't be made, each download gets the error, and a later one tries again."""
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
        """Consecutive downloads share a connection, also after errors and redirects."""
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
        """Many downloads from one host on N threads open at most N connections."""
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
        """N threads use N connections at once; none waits for another's."""
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
        """Downloads with different credentials share no connection."""
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
        """A connection that the server closes isn't used again."""
        server = raw_server([[Recv(), Send(data)]])
        context = Context()
        for _ in range(3):
            assert content(sharing(context, server.url())) == BODY
        assert server.connections == 3
        context.close()

    def test_kept_by_the_old(self, raw_server: Any) -> None:
        """An HTTP/1.0 connection with keep-alive is reused."""
        data = reply(headers={"Connection": "keep-alive"}, body=BODY, version="HTTP/1.0")
        server = raw_server([serve(data)])
        context = Context()
        for _ in range(3):
            assert content(sharing(context, server.url())) == BODY
        assert server.connections == 1
        context.close()

    @pytest.mark.parametrize("extra", [b"x", reply(body=b"another")])
    def test_extra_bytes(self, raw_server: Any, extra: bytes) -> None:
        """Bytes after a body are never taken for the next response."""
        server = raw_server([serve(reply(body=BODY) + extra)])
        context = Context()
        for _ in range(3):
            assert content(sharing(context, server.url())) == BODY
        assert server.connections == 3
        context.close()

    def test_extra_bytes_later(self, raw_server: Any) -> None:
        """Bytes that arrive on an idle connection are never taken for the next response."""
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
    """Servers may close an idle connection at any time, which isn't a failure."""

    @pytest.mark.parametrize("end", [Close(), Cut(), Reset()])
    def test_closed_at_the_next_request(self, raw_server: Any, end: Any) -> None:
        """If the server closes an idle connection on its next request, that is sent again for free.

        The resent request doesn't count as an attempt.
        """
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
        """If a proxy closes an idle connection, the request is sent again without an attempt."""
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
        """A connection that was closed while idle is replaced by a new one."""
        server = raw_server([[Recv(), Send(reply(body=BODY)), end]])
        context = Context()
        for expected in range(1, 5):
            assert content(sharing(context, server.url())) == BODY
            server.until(lambda: server.open_connections == 0)
            assert server.connections == expected
        context.close()

    def test_new_connections_are_no_excuse(self, raw_server: Any) -> None:
        """A new connection closed without a response is an error and the request isn't resent."""
        server = raw_server([[Recv()]])
        failure(into_memory(server.url()), DownloadFailed)
        assert server.connections == 1

    def test_many(self, raw_server: Any) -> None:
        """A download succeeds even if every pooled connection has become stale."""
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
    """The owner of a context closes it."""

    def test_of_its_own(self, file_server: Any, no_leaks: None) -> None:
        """A download without a shared context leaves no connection open."""
        server = file_server({"/a": BODY})
        download = into_memory(server.url("/a"))
        for _ in range(2):
            content(download)
            server.until(lambda: server.open_connections == 0)
        failure(into_memory(server.url("/none")))
        server.until(lambda: server.open_connections == 0)

    def test_given(self, file_server: Any, no_leaks: None) -> None:
        """A download leaves a given context open until its owner closes it."""
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
        """A batch closes the context that it made."""
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
        """The environment is read once for a session, and again for a new context."""
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
        """Requests by the user on the session use the same settings of the environment."""
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
        """The netrc file, also one named by NETRC, is read once for a session."""
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
    """A forked child uses no connection of its parent, whose connections keep working."""
    server = file_server({"/a": BODY})
    context = Context()
    download = sharing(context, server.url("/a"))
    assert content(download) == BODY
    read, write = os.pipe()
    child = os.fork()
    if not child:
        # The child may leave here by _exit only.
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
    """After a failure in the middle of a response the retry uses a new connection."""
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
