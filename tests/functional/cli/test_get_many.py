"""Tests of `pulp-futures get` with several files: lists, sessions, and going on after a stop."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import click
import pytest
from servers.files import File, Hold, StallAfter, Status

from pulpcore.plugin.download.futures.cli import app, wanted
from pulpcore.plugin.download.futures.cli.signals import Interrupted

PROGRAM = [sys.executable, "-m", "pulp_futures"]
FILES = {f"/{name}": name.encode() * 1000 for name in "abc"}


def sha256(content):
    """Return the SHA-256 digest (hex)."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Make an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(work, capsys):
    """Return `call(*arguments)`, which runs the command line: status, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        status = app.run(list(map(str, arguments)))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def server(file_server):
    """Serve three files."""
    return file_server(dict(FILES))


def names(folder):
    """Return the names of the files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class TestLists:
    def test_arguments(self, call, server, work):
        """Several URLs are downloaded into a folder, and a summary counts them."""
        status, out, err = call("get", *map(server.url, FILES), "-P", "x/y")
        assert (status, err) == (0, "")
        # On a busy machine there may be progress above.
        last = out.splitlines()[-1]
        assert last.startswith("3 files: 3 downloaded (3.0 kB in ")
        assert last.endswith(" 0 already there, 0 failed")
        assert names(work) == ["x/y/a", "x/y/b", "x/y/c"]

    def test_list(self, call, server, work):
        """A list gives names and digests; a wrong file fails, and the others are downloaded."""
        (work / "list").write_text(
            f"{server.url('/a')}\n  out=sub/d\n  checksum=sha-256={sha256(FILES['/a'])}\n"
            f"{server.url('/b')}\n  size=7\n{server.url('/none')}\n"
        )
        status, out, err = call("get", "-i", "list", server.url("/c"), "--json")
        assert status == 1
        records = {record["path"]: record for record in map(json.loads, out.splitlines())}
        assert {path: record["status"] for path, record in records.items()} == {
            "sub/d": "ok",
            "c": "ok",
            "b": "failed",
            "none": "failed",
        }
        assert records["none"]["http_status"] == 404
        assert records["c"]["sha256"] == sha256(FILES["/c"])
        assert err.splitlines()[-1].startswith("4 files: 2 downloaded")
        assert names(work) == ["c", "list", "sub/d"]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{}/a\n  out=../b\n", "line 1 of list: the path has a '..'"),
            ("{}/a\n{}/b\n  out=a\n", "line 2 of list: 'a': two entries have this target"),
            ("{}/a\nnonsense\n", "line 2 of list: no URL"),
        ],
    )
    def test_refused_beforehand(self, call, server, work, text, problem):
        """If a list has a bad line, or two entries for one target, nothing is downloaded."""
        (work / "list").write_text(text.replace("{}", server.url("")))
        status, _, err = call("get", "-i", "list")
        assert status == 2
        assert problem in err
        assert server.count == 0

    def test_stdin(self, server, work):
        """Lines of stdin are fetched as they arrive. Bad lines and repeated targets fail alone."""
        lines = f"{server.url('/a')}\nnonsense\n{server.url('/a')}\n{server.url('/b')}\n"
        done = subprocess.run(
            [*PROGRAM, "get", "-i", "-"],
            input=lines,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 1
        assert "failed: line 2 of stdin: no URL" in done.stderr
        assert "failed: a: line 3 of stdin: 'a': two entries have this target" in done.stderr
        assert done.stdout.startswith("4 files: 2 downloaded")
        assert names(work) == ["a", "b"]

    def test_checksums(self, call, server, work):
        """Files are checked by --checksums. A file that it doesn't list isn't downloaded."""
        (work / "SUMS").write_text(f"{sha256(FILES['/a'])}  a\n{sha256(b'')} *b\n")
        status, _, err = call("get", "--checksums", "SUMS", *map(server.url, FILES))
        assert status == 1
        assert "failed: c: the file of --checksums has no line for it" in err
        assert "the sha256 digest should be" in err
        assert "/c" not in server.paths
        assert names(work) == ["SUMS", "a"]
        status, _, err = call("get", "--checksums", "SUMS", server.url("/c"))
        assert (status, err.count("\n")) == (1, 1)
        status, _, err = call("get", "--checksums", "SUMS", server.url("/a"), "-o", "x/a")
        assert (status, err) == (0, "")
        digest = f"{server.url('/a')}#sha256={sha256(b'')}"
        assert call("get", "--checksums", "SUMS", digest, server.url("/b"))[0] == 1
        (work / "SUMS").write_text("nonsense\n")
        status, _, err = call("get", "--checksums", "SUMS", server.url("/c"))
        assert status == 2
        assert "--checksums: line 1 is no checksum" in err

    def test_fragment(self, call, server, work):
        """The digest at the end of a URL is checked and not sent."""
        assert call("get", f"{server.url('/a')}#sha256={sha256(FILES['/a'])}")[0] == 0
        assert call("get", f"{server.url('/b')}#sha256={sha256(b'')}")[0] == 1
        assert server.paths == ["/a", "/b"]
        assert call("get", f"{server.url('/b')}#sha256=0")[0] == 2

    def test_through_a_link(self, call, server, work):
        """A file isn't written through a link that leads out of the folder."""
        (work / "d").mkdir()
        (work / "d" / "a").symlink_to(work / "outside")
        status, _, err = call("get", server.url("/a"), server.url("/b"), "-P", "d")
        assert status == 1
        assert "through a link" in err
        assert names(work) == ["d/b"]
        assert call("get", server.url("/a"), "-P", "d")[0] == 2

    @pytest.mark.parametrize(
        "arguments",
        [
            ["get"],
            ["get", "http://h/a", "http://h/b", "-o", "c"],
            ["get", "http://h/a", "-i", "list", "--size", "1"],
            ["get", "-i", "none"],
            ["get", "http://h/a", "-o", "-", "--session", "s"],
            ["get", "http://h/a", "-q", "-v"],
            ["get", "http://h/a", "--limit-rate", "fast"],
            ["get", "http://h/a", "--limit-rate", "0"],
            ["get", "http://h/a", "gopher://h/b"],
        ],
    )
    def test_usage(self, call, arguments):
        """Arguments that contradict each other, or can't be used, are usage errors."""
        status, out, err = call(*arguments)
        assert (status, out) == (2, "")
        assert "Error: " in err

    def test_unreadable_list(self, call, work, monkeypatch):
        """A list that can't be read, a closed stdin, or a removed directory is a usage error."""
        monkeypatch.setattr(sys, "stdin", None)
        status, out, err = call("get", "-i", "-")
        assert (status, out) == (2, "")
        assert "stdin is closed" in err
        status, out, err = call("get", "-i", work)
        assert (status, out) == (2, "")
        assert "it is a folder" in err
        (work / "gone").mkdir()
        monkeypatch.chdir(work / "gone")
        (work / "gone").rmdir()
        status, _, err = call("get", "http://h/a", "http://h/b")
        assert status == 2
        assert "the working directory can't be used" in err

    def test_empty_list(self, call, work):
        """A list without entries is downloaded at once."""
        (work / "list").write_text("# nothing\n")
        status, out, err = call("get", "-i", "list")
        assert (status, err) == (0, "")
        assert out.startswith("0 files: 0 downloaded")

    def test_help(self, call):
        """The help of a command groups the options."""
        for command in "get", "sync":
            status, out, _ = call(command, "--help")
            titles = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
            assert (status, titles) == (0, ["Files:", "Limits:", "Connection:", "Messages:"])

    def test_quiet(self, call, server):
        """--quiet writes errors only."""
        assert call("get", "-q", server.url("/a")) == (0, "", "")
        status, out, err = call("get", "-q", server.url("/a"), server.url("/none"))
        assert (status, out) == (1, "")
        assert err.startswith("failed: none: ")

    def test_retry(self, call, server):
        """--retry says how many more times a file is tried."""
        server.faults = lambda *_: Status(503)
        for number in 0, 1:
            before = server.count
            assert call("get", "--retry", number, server.url("/a"))[0] == 1
            assert server.count - before == number + 1

    def test_limits(self, call, server, monkeypatch):
        """--limit-rate and --per-host become the limits of the batch."""
        from pulpcore.plugin.download.futures.cli import transfer

        seen, batch = [], transfer.Batch
        monkeypatch.setattr(
            transfer, "Batch", lambda *given, **named: seen.append(named) or batch(*given, **named)
        )
        assert call("get", server.url("/a"), "--limit-rate", "1.5m", "--per-host", 2)[0] == 0
        assert seen[0]["limits"].bandwidth == 1.5 * 2**20
        assert seen[0]["limits"].per_host == 2


class TestSession:
    def test_again(self, call, server, work):
        """A finished file is skipped by the next run, unless it is gone or has another size."""
        get = "get", "--session", "s", *map(server.url, FILES)
        assert call(*get)[0] == 0
        assert server.count == 3
        status, out, _ = call(*get)
        assert status == 0
        assert "0 downloaded" in out
        assert "3 already there" in out
        assert server.count == 3
        (work / "a").unlink()
        (work / "b").write_bytes(b"b")
        assert "2 downloaded" in call(*get)[1]
        assert server.count == 5
        status, out, _ = call("get", "--session", "s", server.url("/a"))
        assert (status, out) == (0, "a: already there\n")

    def test_killed(self, server, work):
        """After kill -9 the next run asks for what wasn't finished, and 16 files more at most."""
        held = threading.Event()
        files = {f"/{number}": b"x" for number in range(300)}
        server.files = files
        server.faults = lambda index, _: Hold(held) if index >= 200 else None
        (work / "list").write_text("".join(f"{server.url(path)}\n" for path in files))
        command = [*PROGRAM, "get", "-i", "list", "--session", "s"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            server.until(lambda: server.count == 204)
            process.kill()
        held.set()
        server.faults = {}
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        assert len(set(server.paths)) == 300
        assert len(server.paths) <= 300 + 16
        assert done.stdout.splitlines()[-1].startswith("300 files: ")
        assert {*map(str, range(300)), "list", "s"} <= set(names(work))

    def test_unwritable(self, call, server, monkeypatch):
        """A journal that can't be written stops no download, and sets the status."""

        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pulpcore.plugin.download.futures.cli.session.Session.add", refuse)
        status, out, err = call("get", "--session", "s", server.url("/a"), server.url("/b"))
        assert status == 1
        assert "2 downloaded" in out
        assert "failed: --session can't be written: No space left on device" in err


def test_list_that_vanished(tmp_path):
    """A list that is gone when its turn comes is an error that names it, without a traceback."""
    with pytest.raises(click.UsageError, match=r"^-i: '.*gone': No such file or directory$"):
        wanted.open_list(str(tmp_path / "gone"))


class TestStopped:
    @pytest.mark.parametrize("keeps", [True, False])
    def test_goes_on(self, file_server, work, keeps):
        """With -c a stopped run keeps partial files, and the next asks for the rest only."""
        content = os.urandom(600_000)
        server = file_server({"/a": File(content, etag='"1"'), "/b": b"B", "/c": b"C"})
        server.faults = {0: StallAfter(400_000)}
        arguments = [*PROGRAM, "get", "--json", "--concurrent", "1", *(["-c"] if keeps else [])]
        arguments += [server.url(path) for path in ("/a", "/b", "/c")]
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            server.until(lambda: server.count == 1)
            server.until(lambda: not keeps or any(p.stat().st_size > 9999 for p in work.iterdir()))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=100)
        assert process.returncode == 130
        records = [json.loads(line) for line in out.splitlines()]
        assert [(record["path"], record["status"]) for record in records] == [
            ("a", "interrupted"),
            ("b", "interrupted"),
            ("c", "interrupted"),
        ]
        assert ("partial files are kept" if keeps else "no partial file is left") in err
        assert err.splitlines()[-1].startswith("3 files: 0 downloaded")
        assert "3 interrupted: the same command" in err
        assert bool(names(work)) == keeps
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=True)
        assert done.stdout.count('"ok"') == 3
        assert (work / "a").read_bytes() == content
        assert (server.requests[1].header("Range") is not None) == keeps

    def test_while_the_list_is_checked(self, call, server, work, monkeypatch):
        """Ctrl-C before the first request says that no file was downloaded; --json names each."""
        (work / "list").write_text(f"{server.url('/a')}\n{server.url('/b')}\n")
        monkeypatch.setattr(wanted.Files, "check", Mock(side_effect=Interrupted(signal.SIGINT)))
        status, out, err = call("get", "-i", "list", "--json")
        assert status == 130
        records = map(json.loads, out.splitlines())
        assert [(each["path"], each["reason"]) for each in records] == [
            ("a", "it never began"),
            ("b", "it never began"),
        ]
        assert "stopped: no file was downloaded" in err
        assert server.count == 0

    def test_there_already(self, call, server, work):
        """With -c, an existing file with the given size and digest is skipped."""
        arguments = "get", "-c", server.url("/a"), "--size", 1000, "--sha256", sha256(FILES["/a"])
        assert call(*arguments)[0] == 0
        assert call(*arguments) == (0, "a: already there\n", "")
        assert server.count == 1


class TestWaits:
    def test_told(self, call, server):
        """While the program waits as a server asked for, it says so."""
        server.faults = {0: Status(503, {"Retry-After": "1"})}
        status, out, _ = call("get", server.url("/a"))
        assert status == 0
        assert out.startswith("a: waiting 2 s: the server asked for it (")
        assert "503" in out.splitlines()[0]

    def test_hint(self, call, server):
        """A hint names the option of the program."""
        server.faults = {0: Status(401)}
        assert "give --user" in call("get", server.url("/a"))[2]
