"""Tests of several sources of a file: lists, `--mirror`, and `--metalink`."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from xml.sax.saxutils import escape

import pytest
from servers.files import Hold, Redirect, Status
from servers.message import basic

from pulpcore.plugin.download.futures.cli import app

CONTENT = b"content" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DEAD = "http://127.0.0.1:1"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Return `call(*arguments)`, which runs the command line: status, records and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULP_FUTURES_PASSWORD", "s3cret")

    def run(*arguments):
        capsys.readouterr()
        status = app.run([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.fixture
def servers(file_server):
    """Serve the same file twice."""
    return [file_server({"/r/a": CONTENT, "/r/d/b": b"B"}) for _ in range(2)]


def metalink(*files):
    """Return a Metalink document of files: their name, digest, and URLs."""
    listed = ""
    for name, digest, urls in files:
        known = f"<hash type='sha-256'>{digest}</hash>" if digest else ""
        found = (f"<url priority='{n}'>{escape(url)}</url>" for n, url in enumerate(urls, 1))
        listed += f"<file name='{name}'>{known}{''.join(found)}</file>"
    return f'<metalink xmlns="urn:ietf:params:xml:ns:metalink">{listed}</metalink>'.encode()


class TestList:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_sources(self, call, servers, tmp_path, processes):
        """If the first source of a line fails, the next brings the file, and JSON names it."""
        good = servers[0]
        (tmp_path / "list").write_text(
            f"{DEAD}/r/a?t=s3cret\t{good.url('/none')}\t{good.url('/r/a', userinfo='u:s3cret')}\n"
            f" checksum=sha-256={SHA256}\n"
        )
        status, (record,), err = call("get", "-i", "list", "--processes", processes)
        assert (status, record["status"], record["path"]) == (0, "ok", "a")
        assert record["url"] == f"{DEAD}/r/a?t=***"
        assert record["source"] == good.url("/r/a")
        assert "s3cret" not in err + str(record)
        assert (tmp_path / "a").read_bytes() == CONTENT

    def test_all_failed(self, call, servers, tmp_path):
        """If all sources fail, the error names each with its reason, and no secret."""
        first, second = servers
        (tmp_path / "list").write_text(
            f"{first.url('/x?t=s3cret')}\t{second.url('/y', userinfo='u:s3cret')}\n"
        )
        status, (record,), err = call("get", "-i", "list")
        assert (status, record["status"], record["source"]) == (1, "failed", None)
        for server in servers:
            assert f"127.0.0.1:{server.port}/" in record["reason"]
        assert record["reason"].count("404 Not Found") == 2
        assert "s3cret" not in err + str(record)

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("http://h/a\tnonsense", "line 1 of list: no URL of http"),
            ("http://h/a\thttp://h:99999/a", "'http://h:99999/a': the URL is not valid"),
            ("http://h/a\tftp://h/a", "only URLs of http and https can be sources"),
            (f"http://h/a#md5={'0' * 32}\thttp://i/a#md5={'1' * 32}", "different md5 digests"),
        ],
    )
    def test_refused(self, call, tmp_path, line, problem):
        """Sources that can't be used, or have different digests, are refused beforehand."""
        (tmp_path / "list").write_text(f"{line}\n")
        status, records, err = call("get", "-i", "list")
        assert (status, records) == (2, [])
        assert problem in err

    def test_session(self, call, servers, tmp_path):
        """A file that a mirror sent is skipped by the next run."""
        (tmp_path / "list").write_text(f"{DEAD}/r/a\t{servers[0].url('/r/a')}\n")
        for expected in "ok", "skipped":
            status, (record,), _ = call("get", "-i", "list", "--session", "s")
            assert (status, record["status"]) == (0, expected)
        assert servers[0].count == 1


class TestMirror:
    def test_get(self, call, servers):
        """--mirror is another base of the folder that a URL is in; the next base is asked, too."""
        first, second = (server.url("/r") for server in servers)
        arguments = "--mirror", f"{first}/d/", "--mirror", second, "--user", "me"
        status, (record,), err = call("get", f"{DEAD}/x/y/a?token=s3cret", *arguments)
        assert (status, record["source"]) == (0, servers[1].url("/r/a"))
        assert [server.paths for server in servers] == [["/r/d/a"], ["/r/a"]]
        assert all(r.header("Authorization") is None for s in servers for r in s.requests)
        assert "s3cret" not in err + str(record)
        status, records, _ = call("get", f"{DEAD}/b", f"{DEAD}/z/a", *arguments)
        assert status == 0
        assert [each["status"] for each in records] == ["ok", "ok"]

    def test_metalink(self, call, servers, tmp_path):
        """The bases of --mirror are sources of a Metalink document's files, too."""
        (tmp_path / "m").write_bytes(metalink(("x", SHA256, [f"{DEAD}/a"]), ("y", None, [])))
        mirror = servers[0].url("/r")
        status, records, _ = call("get", "--metalink", "m", "--mirror", mirror)
        assert status == 1
        assert {each["path"]: each["source"] for each in records} == {"x": f"{mirror}/a", "y": None}

    def test_sync(self, call, servers, tmp_path):
        """`sync` takes the manifest and its files from a mirror if the server is away."""
        files = {"a": CONTENT, "d/b": b"B"}
        lines = [f"{p},{hashlib.sha256(c).hexdigest()},{len(c)}\n" for p, c in files.items()]
        servers[0].files["/r/PULP_MANIFEST"] = "".join(lines).encode()
        url = f"{DEAD}/PULP_MANIFEST?token=s3cret"
        mirror = servers[0].url("/r/")
        status, records, err = call("sync", url, "to", "--mirror", mirror, "--user", "me")
        assert status == 0
        assert {each["source"] for each in records} == {mirror + path for path in files}
        assert {each["url"] for each in records} == {f"{DEAD}/{p}?token=***" for p in files}
        for path, content in files.items():
            assert (tmp_path / "to" / path).read_bytes() == content
        assert all(r.header("Authorization") is None for r in servers[0].requests)
        assert servers[0].paths[0] == "/r/PULP_MANIFEST"
        assert sorted(servers[0].paths[1:]) == ["/r/a", "/r/d/b"]
        assert "s3cret" not in err + str(records)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["get", "ftp://h/a", "--mirror", "http://h/"],
            ["get", "ftp://h/a", "http://h/b", "--mirror", "http://h/"],
            ["get", "http://h/..", "-o", "a", "--mirror", "http://h/"],
            ["get", "http://h/a", "--mirror", "s3cret"],
            ["get", "http://h/a", "--mirror", "ftp://u:s3cret@h/"],
            ["get", "http://h/a", "--mirror", "http://h/?s3cret"],
            ["sync", "file:///a/PULP_MANIFEST", "--mirror", "http://h/"],
        ],
    )
    def test_usage(self, call, arguments):
        """A base that can't be used, and a URL that can't have mirrors, are usage errors."""
        status, records, err = call(*arguments)
        assert (status, records) == (2, [])
        assert "--mirror" in err
        assert "s3cret" not in err


class TestMetalink:
    def test_file(self, call, servers, tmp_path):
        """The files of a document are downloaded from its URLs, checked, and noted in a session."""
        good = servers[0].url("/r/a")
        document = metalink(
            ("x/a", SHA256, [f"{DEAD}/a", good]), ("b", "0" * 64, [good]), ("c", None, [])
        )
        (tmp_path / "m").write_bytes(document)
        status, records, _ = call("get", "--metalink", "m", "--session", "s", "--user", "me")
        found = {each["path"]: each for each in records}
        assert (status, len(records)) == (1, 3)
        assert (found["x/a"]["status"], found["x/a"]["source"]) == ("ok", good)
        assert "the sha256 digest should be" in found["b"]["reason"]
        assert found["c"]["reason"] == "the Metalink document has no http URL of it"
        assert (tmp_path / "x" / "a").read_bytes() == CONTENT
        assert any(r.header("Authorization") for r in servers[0].requests)
        records = call("get", "--metalink", "m", "--session", "s")[1]
        assert {each["path"]: each["status"] for each in records}["x/a"] == "skipped"

    def test_url(self, call, servers, tmp_path):
        """Credentials go only to the document's server, and not to the servers that it names."""
        home, other = servers
        document = metalink(("a", SHA256, [other.url("/r/a")]), ("b", None, [home.url("/r/d/b")]))
        home.files["/m?t=s3cret"] = document
        url = home.url("/m?t=s3cret")
        status, records, err = call("get", "--metalink", url, home.url("/r/a"), "--user", "me")
        assert status == 2
        assert "'a': two entries have this target" in err
        status, records, err = call("get", "--metalink", url, "--user", "me")
        assert status == 0, err
        assert all(r.header("Authorization") is None for r in other.requests)
        assert all(r.header("Authorization") is not None for r in home.requests)
        assert other.count == 1
        assert "s3cret" not in err + str(records)

    def test_netrc(self, call, servers, tmp_path, monkeypatch):
        """The default entry of a netrc file goes to the document's server only."""
        (tmp_path / "netrc").write_text("default login me password s3cret")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        home, other = servers
        own = other.url("/r/d/b", userinfo="it:self")
        home.files["/m"] = metalink(("a", SHA256, [other.url("/r/a")]), ("b", None, [own]))
        status, _, err = call("get", "--metalink", home.url("/m"))
        assert status == 0, err
        sent = {request.path: request.header("Authorization") for request in other.requests}
        assert sent == {"/r/a": None, "/r/d/b": basic("it", "self")}
        assert home.requests[0].header("Authorization") == basic("me", "s3cret")

    @pytest.mark.parametrize("is_redirected", [True, False])
    def test_redirected(self, call, servers, tmp_path, is_redirected):
        """The user's own document gives credentials to all servers; another server's to none."""
        home, other = servers
        document = metalink(("a", SHA256, [home.url("/r/a")]))
        if is_redirected:
            other.files["/m"] = document
            home.files["/m"] = Redirect(other.url("/m"))
            where = home.url("/m")
        else:
            (tmp_path / "m").write_bytes(document)
            where = (tmp_path / "m").as_uri()
        status, (record,), err = call("get", "--metalink", where, "--user", "me")
        assert (status, record["status"]) == (0, "ok"), err
        has_user = [request.header("Authorization") is not None for request in home.requests]
        assert has_user == ([True, False] if is_redirected else [True])

    @pytest.mark.parametrize(
        ("served", "reason"),
        [
            (Status(404), "the Metalink document: "),
            (Redirect("/none"), "404"),
            (b"<html>", "this is no Metalink document"),
        ],
    )
    def test_unusable(self, call, file_server, servers, served, reason):
        """A document that can't be fetched or read is reported as one failure. Other files come."""
        server = file_server({} if isinstance(served, Status) else {"/m?t=s3cret": served})
        url = server.url("/m?t=s3cret", userinfo="u:s3cret")
        status, records, err = call("get", "--metalink", url, servers[0].url("/r/a"))
        assert status == 1
        found = {each["path"]: each for each in records}
        assert found["a"]["status"] == "ok"
        assert found[None]["status"] == "failed"
        assert reason in found[None]["reason"]
        assert found[None]["http_status"] == (None if isinstance(served, bytes) else 404)
        assert "s3cret" not in err + str(records)

    @pytest.mark.parametrize(
        ("document", "problem"),
        [
            (None, "--metalink: 'm': No such file"),
            (b"x" * (10 * 2**20 + 1), "has more than 10485760 bytes"),
            (metalink(("../a", None, ["http://h/a"])), "leads out of its folder"),
            (metalink(("a", None, ["http://h/a"]), ("a", None, ["http://h/b"])), "two entries"),
        ],
    )
    def test_refused(self, call, tmp_path, document, problem):
        """A document that isn't there, is too large or leads out of its folder is refused."""
        if document is not None:
            (tmp_path / "m").write_bytes(document)
        status, records, err = call("get", "--metalink", "m")
        assert (status, records) == (2, [])
        assert problem in err

    def test_interrupted(self, file_server, tmp_path, from_terminal):
        """Ctrl-C while the document is fetched reports it, and each file that never began."""
        held = threading.Event()
        server = file_server({"/m": b""}, faults={0: Hold(held)})
        command = [sys.executable, "-m", "pulp_futures", "get", "--json", server.url("/a")]
        with subprocess.Popen(
            [*command, "--metalink", server.url("/m")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        ) as process:
            server.until(lambda: server.count == 1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=100)
        held.set()
        assert process.returncode == 130
        assert [json.loads(line)["status"] for line in out.splitlines()] == ["interrupted"] * 2
        assert b"stopped: no file was downloaded" in err
        assert os.listdir(tmp_path) == []
