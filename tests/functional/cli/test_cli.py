"""Tests of the command line with servers that behave and misbehave."""

import contextlib
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from importlib import metadata
from typing import NamedTuple

import pytest
from servers.files import CutAfter, File, Redirect, StallAfter, Status
from servers.raw import Recv, Send

from pulpcore.plugin.download.futures.cli import app, manifest, repository

PROGRAM = [sys.executable, "-c", "import pulp_futures; pulp_futures.main()"]


def sha256(content):
    """Return the SHA-256 digest (hex)."""
    return hashlib.sha256(content).hexdigest()


def listing(files):
    """Make the PULP_MANIFEST of files, which are given by their paths."""
    return "".join(f"{path},{sha256(body)},{len(body)}\n" for path, body in files.items()).encode()


def tree(folder):
    """Return the files below a folder with their content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


FILES = {"a": b"A" * 1000, "sub/dir/b, c.bin": b"B" * 70_000, "empty": b"", "é #1%": b"C"}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Make an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PULP_FUTURES_PASSWORD", raising=False)
    return tmp_path


class Result(NamedTuple):
    """The result of a call."""

    exit_code: int
    stdout_bytes: bytes
    stderr: str

    @property
    def stdout(self):
        """What was written to stdout, as text."""
        return self.stdout_bytes.decode()

    @property
    def output(self):
        """All that was written."""
        return self.stdout + self.stderr


@pytest.fixture
def call(work, capsysbinary):
    """Return `call(*arguments)`, which runs the command line in this process."""

    def run(*arguments):
        capsysbinary.readouterr()
        status = app.run([str(item) for item in arguments])
        written = capsysbinary.readouterr()
        return Result(status, written.out, written.err.decode())

    return run


@pytest.fixture
def site(file_server):
    """Return `site(files, lines=None, **options)`, which serves files and their manifest.

    The options are those of FileServer.
    """

    def make(files=FILES, lines=None, **options):
        from urllib.parse import quote

        served = {"/r/" + quote(path): body for path, body in files.items()}
        served["/r/PULP_MANIFEST"] = listing(files) if lines is None else lines
        return file_server(served, **options)

    return make


class TestSync:
    def test_fresh_and_again(self, call, site, work):
        """`sync` downloads all files at first, nothing the second time, and keeps no manifest."""
        server = site()
        url = server.url("/r/PULP_MANIFEST")
        result = call("sync", url, "new/folder")
        assert result.exit_code == 0, result.output
        assert tree(work / "new/folder") == FILES
        assert "4 files: 4 downloaded (71.0 kB" in result.stdout
        assert result.stderr == ""
        assert server.count == 5
        result = call("sync", url, "new/folder")
        assert result.exit_code == 0
        assert "4 files: 0 downloaded (0 bytes" in result.stdout
        assert "4 already there, 0 failed" in result.stdout
        assert server.count == 6

    def test_only_what_differs(self, call, site, work):
        """`sync` replaces files whose size or digest differs, and keeps files not listed."""
        server = site()
        for path, content in {"a": b"short", "é #1%": b"c", "empty": b"", "mine": b"mine"}.items():
            (work / path).write_bytes(content)
        result = call("sync", server.url("/r/PULP_MANIFEST"), work, "-v")
        assert result.exit_code == 0, result.output
        assert tree(work) == FILES | {"mine": b"mine"}
        assert sorted(server.paths[1:]) == [
            "/r/%C3%A9%20%231%25",
            "/r/a",
            "/r/sub/dir/b%2C%20c.bin",
        ]
        assert "skipped: empty\n" in result.stdout
        assert "ok: é #1%\n" in result.stdout

    def test_default_folder(self, call, site, work):
        """By default `sync` names the folder after the URL without its secrets, and prints it."""
        server = site({"a": b"A"})
        result = call("sync", server.url("/r/PULP_MANIFEST?token=secret", userinfo="u:secret"))
        folder = f"127.0.0.1-{server.port}-r"
        assert result.exit_code == 0, result.output
        assert tree(work) == {f"{folder}/a": b"A"}
        assert f"into {folder}\n" in result.stdout
        assert "secret" not in result.output

    def test_json(self, call, site, work):
        """With --json `sync` writes a JSON line for each file to stdout, and the rest to stderr."""
        server = site(lines=listing(FILES) + b"nonsense\n../x," + b"0" * 64 + b",1\n")
        (work / "empty").touch()
        url = server.url("/r/PULP_MANIFEST", userinfo="u:secret")
        result = call("sync", url, work, "--json")
        assert result.exit_code == 1
        records = [json.loads(line) for line in result.stdout.splitlines()]
        assert {record["path"]: record["status"] for record in records} == {
            "a": "ok",
            "sub/dir/b, c.bin": "ok",
            "empty": "skipped",
            "é #1%": "ok",
            None: "failed",
            "../x": "failed",
        }
        (first,) = (record for record in records if record["path"] == "a")
        assert first == {
            "path": "a",
            "url": server.url("/r/a"),
            "size": 1000,
            "sha256": sha256(FILES["a"]),
            "status": "ok",
            "reason": None,
            "http_status": 200,
            "source": server.url("/r/a"),
        }
        assert "6 files: 3 downloaded" in result.stderr
        assert "secret" not in result.output

    def test_bad_lines(self, call, site, work):
        """`sync` reports invalid manifest lines by number and reason, and downloads the rest."""
        lines = b"a,zz,1\n" + listing(FILES) + b"/abs," + b"0" * 64 + b",1\n"
        lines += b"\x1b[2Ja/../..," + b"0" * 64 + b",1\n"
        result = call("sync", site(lines=lines).url("/r/PULP_MANIFEST"), "d")
        assert result.exit_code == 1
        assert tree(work) == {f"d/{path}": body for path, body in FILES.items()}
        assert "failed: line 1 of the manifest: not path,sha256,size: 'a,zz,1'\n" in result.stderr
        assert "failed: /abs: line 6 of the manifest: the path is absolute" in result.stderr
        assert "failed: \\x1b[2Ja/../..: line 7 of the manifest: the path has a" in result.stderr
        assert "7 files: 4 downloaded" in result.stdout
        assert "0 already there, 3 failed" in result.stdout

    def test_no_manifest_but_a_page(self, call, site, work):
        """`sync` refuses an HTML page as manifest in one line and creates nothing."""
        page = b"<!DOCTYPE html>\n" + b"<p>a,b,c</p>\n" * 3000
        result = call("sync", site(lines=page).url("/r/PULP_MANIFEST"), "d")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("failed: this is no manifest: line 1")
        assert list(work.iterdir()) == []

    def test_comments_and_spaces(self, call, site, work):
        """`sync` skips comments and strips fields in a manifest, as pulp_file does."""
        lines = f"# made by a tool\n  a , {sha256(b'A')} , 1\n#b,{sha256(b'B')},1\n".encode()
        result = call("sync", site({"a": b"A"}, lines).url("/r/PULP_MANIFEST"), ".")
        assert result.exit_code == 0, result.output
        assert tree(work) == {"a": b"A"}

    def test_query(self, call, site, work):
        """`sync` sends the query and the credentials of the manifest's URL with each file."""
        server = site({"a": b"A"}, user=("me", "s3cret"))
        server.files["/r/a?token=s3cret"] = b"A"
        server.files["/r/PULP_MANIFEST?token=s3cret"] = listing({"a": b"A"})
        result = call(
            "sync", server.url("/r/PULP_MANIFEST?token=s3cret", userinfo="me:s3cret"), "."
        )
        assert result.exit_code == 0, result.output
        assert server.paths[-1] == "/r/a?token=s3cret"
        assert "s3cret" not in result.output

    def test_redirect_on_the_server(self, call, site, work, monkeypatch):
        """After a redirect on the same server, files are next to the final manifest.

        They are requested with that URL's query, and with user and headers.
        """
        monkeypatch.setenv("PULP_FUTURES_PASSWORD", "s3cret")
        server = site({"a": b"A"})
        server.files["/old/PULP_MANIFEST?token=1"] = Redirect("/r/PULP_MANIFEST?token=2")
        server.files["/r/PULP_MANIFEST?token=2"] = listing({"a": b"A"})
        server.files["/r/a?token=2"] = b"A"
        url = server.url("/old/PULP_MANIFEST?token=1")
        result = call("sync", url, ".", "--user", "me", "--header", "Cookie: hush")
        assert result.exit_code == 0, result.output
        assert server.paths[-1] == "/r/a?token=2"
        assert server.requests[-1].header("Authorization") is not None
        assert server.requests[-1].header("Cookie") == "hush"

    @pytest.mark.parametrize("user", [["--user", "me"], []], ids=str)
    def test_redirect_to_another_server(self, call, site, file_server, work, monkeypatch, user):
        """After a redirect, another server gets no query, user, netrc entry or private header."""
        monkeypatch.setenv("PULP_FUTURES_PASSWORD", "s3cret")
        (work / "netrc").write_text("default login me password s3cret")
        monkeypatch.setenv("NETRC", str(work / "netrc"))
        other = site({"a": b"A"})
        path = "/PULP_MANIFEST?token=s3cret"
        first = file_server({path: Redirect(other.url("/r/PULP_MANIFEST"))})
        headers = ["--header", "Cookie: s3cret", "--header", "X-Tenant: one"]
        result = call("sync", first.url(path), ".", *user, *headers)
        assert result.exit_code == 0, result.output
        assert first.requests[0].header("Authorization") is not None
        assert other.paths == ["/r/PULP_MANIFEST", "/r/a"]
        for request in other.requests:
            assert request.header("Authorization") is None
            assert request.header("Cookie") is None
            assert request.header("X-Tenant") == "one"

    def test_through_a_link(self, call, site, work):
        """`sync` doesn't follow a symbolic link out of the destination."""
        (work / "d").mkdir()
        (work / "out").mkdir()
        (work / "out/b").write_text("old")
        (work / "d/sub").symlink_to("../out")
        (work / "d/a").symlink_to("../out/b")
        files = {"a": b"A", "sub/b": b"B", "sub/new": b"N", "good": b"G"}
        result = call("sync", site(files).url("/r/PULP_MANIFEST"), "d")
        assert result.exit_code == 1
        assert tree(work / "out") == {"b": b"old"}
        assert (work / "d/good").read_bytes() == b"G"
        assert "failed: sub/new: line 3 of the manifest: the path leaves" in result.stderr
        assert result.stderr.count("through a link") == 3

    def test_failures(self, call, site, work):
        """`sync` names each failed file with its reason, keeps the old one and leaves no part."""
        files = {"a": b"new", "b": b"right", "c": b"long enough", "d": b"good", "f/g": b"x"}
        lines = listing(files)
        files["b"] = b"wrong"
        files["c"] = b"too short"
        server = site(files, lines)
        del server.files["/r/a"]
        old = {"a": b"old", "b": b"old b", "c": b"old c", "f": b"in the way"}
        for name, content in old.items():
            (work / name).write_bytes(content)
        result = call("sync", server.url("/r/PULP_MANIFEST", userinfo="u:secret"), work)
        assert result.exit_code == 1
        assert tree(work) == old | {"d": b"good"}
        failed = {line.split(":")[1].strip(): line for line in result.stderr.splitlines()}
        assert set(failed) == {"a", "b", "c", "f/g"}
        assert "404" in failed["a"]
        assert "sha256" in failed["b"]
        assert "size" in failed["c"]
        assert "5 files: 1 downloaded (4 bytes" in result.stdout
        assert "secret" not in result.output

    def test_cut(self, call, site, work):
        """`sync` never stores a truncated file."""
        files = {"a": b"A" * 1000}

        def fault(_, request):
            return CutAfter(500) if request.path == "/r/a" else None

        result = call("sync", site(files, faults=fault).url("/r/PULP_MANIFEST"), work)
        assert result.exit_code == 1
        assert tree(work) == {}
        assert "failed: a: " in result.stderr

    @pytest.mark.parametrize("fault", [Status(404), Status(401), Redirect("/loop")])
    def test_no_manifest(self, call, file_server, work, fault):
        """If the manifest can't be downloaded, `sync` creates nothing."""
        server = file_server({"/loop": Redirect("/loop")}, faults={0: Status(404)})
        result = call("sync", server.url("/m?token=secret"), "d")
        assert result.exit_code == 1
        assert result.stderr.startswith("failed: the manifest: http://127.0.0.1")
        assert "404" in result.stderr
        assert "secret" not in result.output
        assert list(work.iterdir()) == []

    def test_manifest_is_no_text(self, call, site, work):
        """`sync` reports a binary file as not being a manifest."""
        result = call("sync", site(lines=b"\xff\xfe").url("/r/PULP_MANIFEST"), "d")
        assert result.exit_code == 1
        assert "failed: the manifest is no text in UTF-8" in result.stderr
        assert list(work.iterdir()) == []

    def test_endless_manifest(self, call, site, work, monkeypatch):
        """`sync` stops reading a manifest above the size limit."""
        monkeypatch.setattr(manifest, "LIMIT", 100)
        result = call("sync", site().url("/r/PULP_MANIFEST"), "d")
        assert result.exit_code == 1
        assert "more than 100 bytes" in result.stderr
        assert list(work.iterdir()) == []

    def test_empty_manifest(self, call, site, work):
        """`sync` of an empty manifest creates an empty folder."""
        result = call("sync", site({}).url("/r/PULP_MANIFEST"), "d")
        assert result.exit_code == 0
        assert "0 files: 0 downloaded" in result.stdout
        assert (work / "d").is_dir()

    def test_from_disk(self, call, work):
        """`sync` accepts a repository on disk by its file URL."""
        (work / "repo").mkdir()
        (work / "repo/é #1%").write_bytes(b"C")
        (work / "repo/PULP_MANIFEST").write_bytes(listing({"é #1%": b"C"}))
        result = call("sync", (work / "repo/PULP_MANIFEST").as_uri(), "d")
        assert result.exit_code == 0, result.output
        assert tree(work / "d") == {"é #1%": b"C"}

    def test_file_from_disk(self, call, work):
        """`get` accepts a file on disk by its URL. Only --mirror asks for one of http."""
        (work / "é #1%").write_bytes(b"C")
        result = call("get", (work / "é #1%").as_uri(), "-o", "copy")
        assert result.exit_code == 0, result.output
        assert (work / "copy").read_bytes() == b"C"

    @pytest.mark.parametrize(
        "url",
        [
            "http://me:s3/cret@127.0.0.1:1/PULP_MANIFEST",
            "http://127.0.0.1:s3cret/PULP_MANIFEST",
            "http://[::1/PULP_MANIFEST",
        ],
    )
    def test_malformed_url(self, call, work, url):
        """A malformed URL is a usage error of `sync`, which shows no secret in it."""
        result = call("sync", url)
        assert result.exit_code == 2
        assert "the URL is not valid" in result.stderr
        assert "cret" not in result.output
        assert list(work.iterdir()) == []

    @pytest.mark.parametrize("url", ["gopher://u:secret@h/PULP_MANIFEST", "PULP_MANIFEST", ""])
    def test_bad_url(self, call, work, url):
        """A URL with an unsupported scheme is a usage error of `sync`."""
        result = call("sync", url)
        assert result.exit_code == 2
        assert "secret" not in result.output
        assert list(work.iterdir()) == []

    def test_destination_in_the_way(self, call, site, work):
        """A destination that can't be a folder is a usage error, and the existing file stays."""
        (work / "file").write_text("mine")
        url = site().url("/r/PULP_MANIFEST")
        for destination in ("file", "file/d"):
            result = call("sync", url, destination)
            assert result.exit_code == 2
            assert "file" in result.stderr
        assert tree(work) == {"file": b"mine"}

    def test_unreadable(self, call, site, work, monkeypatch):
        """`sync` downloads an existing file again if it can't be read."""
        server = site({"a": b"A", "l" * 300 + "/b": b"B"})
        (work / "a").write_bytes(b"A")

        def refuse(writer, *_):
            raise PermissionError

        from pulpcore.plugin.download.futures import FileWriter

        monkeypatch.setattr(FileWriter, "existing", refuse)
        result = call("sync", server.url("/r/PULP_MANIFEST"), ".")
        assert result.exit_code == 1
        assert "1 downloaded" in result.stdout
        assert result.stderr.startswith("failed: lll")
        assert result.stderr.count("\n") == 1

    def test_internal_error(self, call, site, work, monkeypatch):
        """An internal error in one download is reported as such, without its text.

        The other downloads go on.
        """
        from pulpcore.plugin.download.futures import HttpDownload

        send = HttpDownload._send

        def buggy(download):
            if download.url.endswith("/a"):
                raise LookupError("secret")
            send(download)

        monkeypatch.setattr(HttpDownload, "_send", buggy)
        result = call("sync", site({"a": b"A", "b": b"B"}).url("/r/PULP_MANIFEST"), ".")
        assert result.exit_code == 1
        assert tree(work) == {"b": b"B"}
        assert "failed: a: internal error (LookupError)" in result.stderr
        assert "secret" not in result.output

    def test_many_at_a_time(self, call, file_server, work):
        """`sync` runs as many downloads at once as its option says."""
        files = {f"{number}": b"x" for number in range(12)}
        together = threading.Barrier(6)

        def fault(_, request):
            if request.path != "/PULP_MANIFEST":
                together.wait(20)

        server = file_server({f"/{path}": body for path, body in files.items()}, faults=fault)
        server.files["/PULP_MANIFEST"] = listing(files)
        result = call("sync", server.url("/PULP_MANIFEST"), ".", "--concurrent", 6)
        assert result.exit_code == 0, result.output
        assert tree(work) == files


class TestDemo:
    def test_demo(self, call, work, monkeypatch):
        """Without a URL `sync` uses a generated demo repository and ignores proxies."""
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        small = repository.Repository(files=60, largest=2**16)
        monkeypatch.setattr(app, "Repository", lambda: small)
        result = call("sync")
        assert result.exit_code == 0, result.output
        found = tree(work / "pulp-futures-demo")
        entries = list(manifest.parse(small.manifest))
        assert {entry.path: entry.sha256 for entry in entries} == {
            path: sha256(body) for path, body in found.items()
        }
        assert "into pulp-futures-demo" in result.stdout
        again = call("sync")
        assert again.exit_code == 0
        assert "60 files: 0 downloaded" in again.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pulp-futures sy", ["plain,sync"]),
        ("pulp-futures get --pa", ["plain,--parts"]),
        ("pulp-futures get -i ", ["file,"]),
        ("pulp-futures get -P ", ["dir,"]),
    ],
)
def test_completion(words, completed):
    """The program completes commands, options and paths in a shell, as the documentation says."""
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    environment["_PULP_FUTURES_COMPLETE"] = "bash_complete"
    done = subprocess.run(
        PROGRAM, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == completed, done.stderr


class TestGet:
    def test_name_of_url(self, call, file_server, work):
        """By default `get` names the file after the URL and prints its size and digest."""
        server = file_server({"/x/a%20b": b"content"})
        result = call("get", server.url("/x/a%20b?token=secret"))
        assert result.exit_code == 0, result.output
        assert tree(work) == {"a b": b"content"}
        assert f"a b: 7 bytes, sha256 {sha256(b'content')}\n" in result.stdout
        assert "secret" not in result.output

    def test_validated(self, call, file_server, work):
        """`get` validates the size and any kind of digest."""
        url = file_server({"/a": b"content"}).url("/a")
        md5 = hashlib.md5(b"content").hexdigest()
        for arguments in (
            ["--size", 7],
            ["--sha256", sha256(b"content").upper()],
            ["--digest", f"MD5:{md5}", "--size", 7],
        ):
            result = call("get", url, "-o", "sub/b", *arguments)
            assert result.exit_code == 0, result.output
            assert tree(work) == {"sub/b": b"content"}

    @pytest.mark.parametrize(
        "arguments", [["--size", 8], ["--sha256", "0" * 64], ["--digest", "sha1:" + "0" * 40]]
    )
    def test_mismatch(self, call, file_server, work, arguments):
        """If the content doesn't match, `get` keeps the old file and nothing else."""
        (work / "a").write_text("old")
        result = call("get", file_server({"/a": b"content"}).url("/a"), *arguments)
        assert result.exit_code == 1
        assert tree(work) == {"a": b"old"}
        assert result.stderr.startswith("failed: a: http://127.0.0.1")

    def test_json(self, call, file_server, work):
        """With --json `get` writes one line of JSON about the result."""
        server = file_server({"/a": b"content"})
        result = call("get", server.url("/a", userinfo="u:secret"), "--json")
        assert json.loads(result.stdout) == {
            "path": "a",
            "url": server.url("/a"),
            "size": 7,
            "sha256": sha256(b"content"),
            "status": "ok",
            "reason": None,
            "http_status": 200,
            "source": server.url("/a"),
        }
        result = call("get", server.url("/b"), "--json")
        assert result.exit_code == 1
        record = json.loads(result.stdout)
        assert (record["status"], record["sha256"]) == ("failed", None)
        assert "404" in record["reason"]

    def test_name_of_the_server(self, call, file_server, work):
        """`get` ignores Content-Disposition and redirects when it names the file."""
        headers = {"Content-Disposition": 'attachment; filename="../evil"'}
        server = file_server({"/b": File(b"content", headers=headers)})
        server.files["/a"] = Redirect("/b", headers=headers)
        assert call("get", server.url("/a")).exit_code == 0
        assert tree(work) == {"a": b"content"}
        assert not (work.parent / "evil").exists()

    def test_stdout(self, call, file_server, work):
        """`get` to stdout writes the content and nothing else there."""
        url = file_server({"/": b"\x00\xff\n"}).url("/")
        result = call("get", url, "-o", "-")
        assert result.exit_code == 0, result.output
        assert result.stdout_bytes == b"\x00\xff\n"
        assert "-: 3 bytes" in result.stderr
        assert tree(work) == {}

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ([], "Missing argument"),
            (["{}/a", "--sha256", "0"], "64 hex digits"),
            (["{}/a", "--digest", "sha3:00"], "unknown digest algorithm"),
            (["{}/a", "--digest", "00"], "ALG:HEX"),
            (["{}/a", "--digest", "md5:" + "0" * 32, "--sha256", "0" * 64], "exclude each other"),
            (["{}/a", "--size", "-1"], "--size"),
            (["{}/a", "--json", "-o", "-"], "both write to stdout"),
            (["{}/a", "-o", ""], "path is empty"),
            (["{}/"], "name"),
            (["{}/a/%2e%2e"], "name"),
            (["{}/..%2fa"], "name"),
            (["gopher://h/a"], "gopher"),
            (["http://h:99999/a"], "the URL is not valid"),
            (["--metalink", "http://h:99999/a"], "the URL is not valid"),
            (["{}/a", "http://h:99999/a"], "'http://h:99999/a': the URL is not valid"),
            (["{}/a", "--no-such-option"], "--no-such-option"),
        ],
    )
    def test_usage(self, call, file_server, work, arguments, why):
        """Invalid arguments of `get` are usage errors before anything is sent."""
        server = file_server({})
        result = call("get", *(item.replace("{}", server.url("")) for item in arguments))
        assert result.exit_code == 2
        assert why in result.stderr
        assert server.count == 0
        assert tree(work) == {}

    def test_credentials(self, call, file_server, work, monkeypatch):
        """`get` sends user and password to the server and to no other host."""
        monkeypatch.setenv("PULP_FUTURES_PASSWORD", "secret")
        server = file_server({"/a": b"content"}, user=("me", "secret"))
        result = call("get", server.url("/a"), "--user", "me", "-vv", "--header", "X-Token: hush")
        assert result.exit_code == 0, result.output
        assert server.requests[-1].header("X-Token") == "hush"
        assert "secret" not in result.output
        assert "hush" not in result.output
        result = call("get", server.url("/a"))
        assert result.exit_code == 1
        assert "401" in result.stderr

    def test_tls(self, call, file_server, tls, work):
        """`get` trusts a given CA, verifies certificates by default, and can be told not to."""
        url = file_server({"/a": b"content"}, tls=tls.server()).url("/a")
        assert call("get", url, "--ca", tls.ca).exit_code == 0
        (work / "a").unlink()
        refused = call("get", url)
        assert refused.exit_code == 1
        assert tree(work) == {}
        assert call("get", url, "--insecure").exit_code == 0

    def test_client_certificate(self, call, file_server, tls, work):
        """`get` sends the client certificate to the server."""
        url = file_server({"/a": b"content"}, tls=tls.server(client_ca=tls.ca)).url("/a")
        client = ["--cert", tls.client.certificate, "--key", tls.client.key]
        assert call("get", url, "--ca", tls.ca, *client).exit_code == 0
        assert call("get", url, "--ca", tls.ca).exit_code == 1

    def test_proxy(self, call, proxy, file_server, work):
        """`get` uses the given proxy with its credentials, and doesn't show them."""
        server = file_server({"/a": b"content"})
        through = proxy(user=("me", "secret"))
        result = call("get", server.url("/a"), "--proxy", through.url("", userinfo="me:secret"))
        assert result.exit_code == 0, result.output
        assert through.connections == 1
        result = call("get", server.url("/a"), "--proxy", through.url("", userinfo="me:wrong-one"))
        assert result.exit_code == 1
        assert "wrong-one" not in result.output

    def test_read_timeout(self, call, file_server, work):
        """`get` fails after the read time-out if the server stalls."""
        server = file_server({"/a": b"content"}, faults=lambda *_: StallAfter(3))
        result = call("get", server.url("/a"), "--read-timeout", 0.2)
        assert result.exit_code == 1
        assert tree(work) == {}

    def test_unknown_size(self, call, raw_server, work):
        """`get` downloads a file of unknown size."""
        server = raw_server(
            [[Recv(), Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ncontent")]]
        )
        result = call("get", server.url("/a"))
        assert result.exit_code == 0, result.output
        assert tree(work) == {"a": b"content"}


class TestRun:
    """The entry point of the script, with its exit statuses."""

    def test_help(self, call):
        """The program prints its help with --help and for a command without arguments.

        The help of a command has the options in groups.
        """
        assert call("--help").exit_code == 0
        help_of_sync = call("sync", "-h")
        assert help_of_sync.exit_code == 0
        groups = [text.strip().partition("\n") for text in help_of_sync.stdout.split("\n\n")]
        assert [title for title, _, text in groups if "--ca FILE" in text] == ["Connection:"]
        assert "Commands:" in call().output

    def test_version(self, call):
        """--version prints the version of the distribution."""
        result = call("--version")
        assert result.exit_code == 0
        assert metadata.version("pulpcore-futures") in result.stdout

    def test_stop(self, call, monkeypatch):
        """A signal ends the program with the status of that signal, also at a prompt."""
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            monkeypatch.setattr(app, "sync", lambda *_, n=number: os.kill(os.getpid(), n))
            assert call("sync", "http://127.0.0.1:1/m").exit_code == status
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

        def ask(*_):
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr("click.termui.hidden_prompt_func", ask)
        assert call("get", "--user", "me", "http://127.0.0.1:1/a").exit_code == 143

    @pytest.mark.parametrize(
        ("command", "first", "stopped"),
        [
            ("get", 0, "stopped: no partial file is left"),
            ("sync", 0, "stopped: the manifest was interrupted, and no file was downloaded"),
            ("sync", 1, "stopped: no partial file is left"),
        ],
    )
    def test_stop_while_a_file_comes(self, call, site, work, command, first, stopped):
        """A signal during a download is reported, and leaves no partial file."""

        def fault(index, _):
            if index < first:
                return None
            if index == first:
                os.kill(os.getpid(), signal.SIGTERM)
            return StallAfter(1)

        server = site({"a": b"A" * 1000}, faults=fault)
        result = call(command, server.url("/r/PULP_MANIFEST"))
        assert result.exit_code == 143
        assert stopped in result.stderr
        assert tree(work) == {}

    @pytest.mark.parametrize(
        ("arguments", "status", "error"),
        [
            (["--version"], 1, "failed: stdout can't be written to: it is closed"),
            (["get", "http://127.0.0.1:1/a", "-o", "-"], 2, "--output: stdout is closed."),
        ],
    )
    def test_closed_stdout(self, call, monkeypatch, arguments, status, error):
        """If stdout is closed, a message says so, and the exit status isn't 0."""
        monkeypatch.setattr(sys, "stdout", None)
        result = call(*arguments)
        assert result.exit_code == status
        assert error in result.stderr

    def test_end_of_input(self, call, monkeypatch):
        """The end of input at a prompt ends the program like Ctrl-C."""
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

        def ask(*_):
            raise EOFError

        monkeypatch.setattr("click.termui.hidden_prompt_func", ask)
        assert call("get", "--user", "me", "http://127.0.0.1:1/a").exit_code == 130

    def test_no_command(self, call):
        """Without a command the help is printed once on stderr, with the status of misuse."""
        result = call()
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("Usage:") == 1
        assert "Error" not in result.stderr

    def test_out_of_descriptors(self, call, monkeypatch):
        """An error of the operating system is reported in one line without a traceback."""

        def serve(_):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(app, "serve", serve)
        result = call("sync")
        assert (result.exit_code, result.stderr) == (1, "failed: Too many open files\n")

    def test_removed_directory(self, call, work, monkeypatch):
        """A relative path in a removed working directory is a usage error."""
        (work / "gone").mkdir()
        monkeypatch.chdir(work / "gone")
        (work / "gone").rmdir()
        result = call("get", "http://127.0.0.1:1/a")
        assert result.exit_code == 2
        assert "the working directory can't be used: No such file or directory" in result.stderr

    def test_hints(self, call):
        """Hints of click and of this program are printed as they are written."""
        result = call("get", "--rety", "5", "http://127.0.0.1:1/a")
        assert "No such option" in result.stderr
        assert "***" not in result.stderr
        result = call("get", "--proxy", "foo", "http://127.0.0.1:1/a")
        assert "a proxy is given as http://[USER:PASSWORD@]HOST:PORT." in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ["get", "http://h/a", "-o", "{}"],
            ["get", "http://h/a", "-o{}"],
            ["get", "http://h/a", "--size", "{}"],
            ["get", "http://h/a", "--size={}"],
            ["get", "http://h/a", "--ca={}"],
            ["get", "http://h/a", "--connect-timeout={}"],
            ["get", "http://h/a", "--user={}"],
            ["get", "http://h/a", "--proxy=gopher{}"],
            ["sync", "http://h/PULP_MANIFEST", "{}"],
            ["{}"],
            ["--ca={}"],
        ],
    )
    def test_secret_in_an_argument(self, call, work, arguments):
        """A URL in the place of another argument is a usage error that hides its secrets."""
        url = "http://me:s3cret@h/x?token=s3cret"
        result = call(*(item.replace("{}", url) for item in arguments))
        assert result.exit_code == 2
        assert result.stderr.count("Error: ") == 1
        assert "s3cret" not in result.output
        assert tree(work) == {}


@contextlib.contextmanager
def program(*arguments, **keywords):
    """Return how to run the program as a process of its own."""
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def shell(line, *arguments):
    """Run a line of bash, in which `$program` is the program and `$1` the first argument."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *map(str, arguments)],
        env=os.environ | {"program": f"{sys.executable} -m pulp_futures"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class TestStreams:
    @pytest.mark.parametrize(
        ("line", "status", "error"),
        [
            ("$program sync $1 d >&-", 1, "failed: stdout can't be written to: it is closed\n"),
            ("$program sync $1 d >/dev/full", 1, "can't be written to: No space left on device\n"),
            ("$program sync $1 d --json >&-", 1, "can't be written to: it is closed\n"),
            ("$program sync $1 d --json >/dev/full", 1, "to: No space left on device\n"),
            ("$program sync $1 d --json >/dev/full 2>&1", 1, ""),
            ("$program sync $1 d 2>&-", 0, ""),
            ("$program sync $1 d --json 2>&-", 0, ""),
            ("$program sync $1 d --json 2>/dev/full", 1, ""),
            ("$program sync $1 d <&- >&- 2>&-", 1, ""),
            ("$program sync $1 d | true; exit ${PIPESTATUS[0]}", 1, "to: Broken pipe\n"),
        ],
    )
    def test_files_are_there(self, work, site, line, status, error):
        """Closed, full or unread output stops no download, and the exit status reports it."""
        result = shell(line, site().url("/r/PULP_MANIFEST"))
        assert tree(work) == {f"d/{path}": body for path, body in FILES.items()}
        assert result.returncode == status
        assert result.stderr.endswith(error) if error else result.stderr == ""
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize(
        ("line", "status", "error"),
        [
            ("$program get $1/r/a -o - >/dev/full", 1, "No space left on device"),
            ("$program get $1/r/a -o - >&-", 2, "--output: stdout is closed."),
            ("$program --version >/dev/full", 1, "No space left on device"),
            ("$program --help >&-", 1, "it is closed"),
            ("$program get --no-such-option 2>&-", 2, ""),
            ("$program get --no-such-option 2>/dev/full", 2, ""),
            ("$program get --user me $1/r/a <&-", 2, "--user needs a password"),
        ],
    )
    def test_nothing_is_there(self, work, site, line, status, error):
        """If the content can't be written to stdout, a message or the exit status says so."""
        result = shell(line, site().url(""))
        assert (result.returncode, tree(work)) == (status, {})
        assert result.stdout == ""
        assert error in result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize(
        ("line", "status", "error"),
        [
            ("$program sync $1/r/PULP_MANIFEST $2", 0, ""),
            ("$program get $1/r/a -o $2/a", 0, ""),
            ("$program get $1/r/a -o -", 0, ""),
            ("$program get $1/r/a", 2, "the working directory can't be used"),
            ("$program get $1/r/a -o b", 1, "No such file or directory"),
            ("$program get $1/r/a --ca ca.pem", 2, "does not exist"),
            ("$program sync $1/r/PULP_MANIFEST", 2, "can't be made: No such file or directory"),
            ("$program sync", 2, "can't be made: No such file or directory"),
        ],
    )
    def test_working_directory_is_gone(self, work, site, line, status, error):
        """In a removed directory absolute paths work, and relative ones fail with a message."""
        (work / "gone").mkdir()
        server = site({"a": b"A"})
        result = shell(f"cd gone; rmdir ../gone; {line}", server.url(""), work / "d")
        assert result.returncode == status, result.stderr
        assert error in result.stderr
        assert "Traceback" not in result.stderr
        if status == 0:
            assert result.stdout.startswith("A") or tree(work) == {"d/a": b"A"}

    def test_module(self, work, site):
        """`python -m pulp_futures` runs the program."""
        result = shell("$program get $1/r/none", site().url(""))
        assert result.returncode == 1
        assert "404" in result.stderr


class TestProcess:
    @pytest.mark.usefixtures("from_terminal")
    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
    )
    def test_stopped(self, work, site, number, status):
        """A signal during `sync` keeps old files, leaves no partial file, and sets the status."""
        files = {"a": b"A" * 300_000, "b": b"B" * 300_000, "done": b"D"}

        def fault(_, request):
            return StallAfter(200_000) if request.path in ("/r/a", "/r/b") else None

        server = site(files, faults=fault)
        (work / "d").mkdir()
        (work / "d/a").write_bytes(b"old")
        with program("sync", server.url("/r/PULP_MANIFEST"), "d", "--json") as process:
            # All of them are running, and what could be completed is.
            assert json.loads(process.stdout.readline())["path"] == "done"
            server.until(lambda: server.count == 4)
            process.send_signal(number)
            output, error = process.communicate(timeout=100)
        assert process.returncode == status
        assert tree(work / "d") == {"a": b"old", "done": b"D"}
        assert "stopped: " in error
        assert "3 files: 1 downloaded (1 byte" in error
        assert "0 failed, 2 interrupted: the same command gets them\n" in error
        records = [json.loads(line) for line in output.splitlines()]
        assert {record["path"]: record["status"] for record in records} == {
            "a": "interrupted",
            "b": "interrupted",
        }
        assert "Traceback" not in error

    @pytest.mark.usefixtures("from_terminal")
    @pytest.mark.parametrize(
        ("command", "stopped"),
        [
            (["sync"], "stopped: the manifest was interrupted"),
            (["get"], "stopped: no partial file is left"),
        ],
    )
    def test_stopped_in_one_file(self, work, site, command, stopped):
        """A signal during `get`, or during the manifest, is reported and leaves no file."""
        server = site(faults=lambda *_: StallAfter(10))
        with program(*command, server.url("/r/PULP_MANIFEST")) as process:
            server.until(lambda: server.count == 1)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=100)
        assert process.returncode == 130
        assert error.startswith(stopped)
        assert "Traceback" not in error
        assert tree(work) == {}

    def test_killed(self, work, site):
        """After kill -9 of `sync` each file is old or new, and the next run completes the rest."""
        files = {"a": b"A" * 300_000, "b": b"B" * 300_000}
        server = site(files, faults=lambda index, _: StallAfter(200_000) if index else None)
        (work / "d").mkdir()
        (work / "d/a").write_bytes(b"old")
        url = server.url("/r/PULP_MANIFEST")
        with program("sync", url, "d", "--json") as process:
            server.until(lambda: server.count == 3)
            process.kill()
            process.communicate(timeout=100)
        assert (work / "d/a").read_bytes() == b"old"
        assert not (work / "d/b").exists()
        server.faults = {}
        with program("sync", url, "d", "--json") as process:
            process.communicate(timeout=100)
        assert process.returncode == 0
        assert {path: (work / "d" / path).read_bytes() for path in files} == files

    def test_reader_gone(self, work):
        """If the reader of a pipe ends after one line, the program ends without a traceback."""
        # The output doesn't fit into the pipe, so the program can't end before the reader does.
        with program("sync", "--json", pipesize=4096) as process:
            assert json.loads(process.stdout.readline())["status"] == "ok"
            process.stdout.close()
            error = process.stderr.read()
            process.wait(timeout=100)
        assert process.returncode == 1
        assert "Traceback" not in error
        assert "BrokenPipe" not in error
        assert not list(work.rglob(".download-*"))

    def test_terminal(self, work, site):
        """On a terminal the program shows a bar with bytes and files, then the summary."""
        server = site()
        main, other = pty.openpty()
        try:
            process = subprocess.Popen(
                [*PROGRAM, "sync", server.url("/r/PULP_MANIFEST"), "d"],
                stdin=other,
                stdout=other,
                stderr=other,
                env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
            )
            os.close(other)
            shown = b""
            with contextlib.suppress(OSError):  # end of file on a terminal
                while chunk := os.read(main, 4096):
                    shown += chunk
            assert process.wait(timeout=100) == 0
        finally:
            os.close(main)
        text = shown.decode()
        assert "Downloading" in text
        assert "4/4 files" in text
        assert "4 files: 4 downloaded" in text
        assert "\x1b[?25h" in text  # show the cursor again
