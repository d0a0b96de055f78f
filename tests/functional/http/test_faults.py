"""Tests of faults of the network, the disk and processes."""

import contextlib
import gc
import hashlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from http_tools import content, failure, into_memory, quick, record, trust
from processes import forked, program, unprivileged
from servers.files import CutAfter, File, FileServer, Redirect, ResetAfter, StallAfter, Status
from servers.listener import HOST
from servers.message import Request
from servers.raw import Close, Cut, Drip, Recv, Reset, Send, Stall, Wait, chunked, reply, serve
from servers.tls import Tls

from pulpcore.plugin.download.futures import (
    Batch,
    DigestValidation,
    DownloadError,
    DownloadFailed,
    Event,
    FileWriter,
    FtpDownload,
    HttpDownload,
    NotAuthorized,
    NotFound,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.waiting.timer import timer

SECONDS = 100
# Too short to be progress that renews the retry budget.
BODY = bytes(range(256)) * 200
# Too large for the disks.
BIG = BODY * 5
WHOLE = reply(body=BODY)
HEAD = len(WHOLE) - len(BODY)
CHUNKED = reply(headers={"Transfer-Encoding": "chunked"}) + chunked(BODY, [1000])
DEFLATED = reply(headers={"Content-Encoding": "xz"}, body=BODY)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of the target, which has an old file."""
    path = tmp_path / "out" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def untouched(target: Path) -> bool:
    """Return whether the old file is there and nothing else."""
    return target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


def into_file(url: str, target: Path, tries: int = 2, **options: Any) -> HttpDownload:
    """Make a download into a file, with two retries without delay."""
    download = HttpDownload(url, FileWriter(target), **options)
    download.retry = quick(total=tries)
    return download


def proper(events: list[Any]) -> bool:
    """Return whether exactly one of Succeeded and Failed was published, as the last event."""
    ends = [event.NAME for event in events if event.NAME in (Event.SUCCEEDED, Event.FAILED)]
    return len(ends) == 1 and ends[0] == events[-1].NAME


# The server's behaviour on each connection, the expected error, and the number of attempts.
NETWORK: dict[str, tuple[list[Any], str, int]] = {
    "closed at once": ([Close()], "without a reply|reset", 3),
    "closed after the request": ([Recv(), Close()], "without a reply|reset", 3),
    "reset at once": ([Reset()], "reset|without a reply", 3),
    "reset after the request": ([Recv(), Reset()], "reset|without a reply", 3),
    "stalls before the head": ([Recv(), Stall()], "read time-out", 3),
    "stalls in the head": ([Recv(), Send(WHOLE[:10]), Stall()], "read time-out", 3),
    "stalls before the body": ([Recv(), Send(WHOLE[:HEAD]), Stall()], "read time-out", 3),
    "stalls in the body": ([Recv(), Send(WHOLE[:-1]), Stall()], "read time-out", 3),
    "stalls in a chunk": ([Recv(), Send(CHUNKED[:-9]), Stall()], "read time-out", 3),
    "cut in the status line": ([Recv(), Send(b"HTTP/1.1 2")], "before the content|without", 3),
    "cut in the head": ([Recv(), Send(WHOLE[: HEAD - 1])], "before the content|without", 3),
    "cut before the body": ([Recv(), Send(WHOLE[:HEAD])], "ended before", 3),
    "cut at the last byte": ([Recv(), Send(WHOLE[:-1])], "ended before", 3),
    "reset at the last byte": ([Recv(), Send(WHOLE[:-1]), Reset()], "ended before|reset", 3),
    "cut at the last chunk": ([Recv(), Send(CHUNKED[:-5])], "ended before", 3),
    "cut in the last chunk": ([Recv(), Send(CHUNKED[:-1])], "ended before", 3),
    "another protocol": ([Recv(), Send(b"SSH-2.0-OpenSSH\r\n")], "can't be trusted", 1),
    "endless head": ([Recv(), Send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99_999)], "trusted", 1),
    "wrong length": ([Recv(), Send(reply(headers={"Content-Length": "-1"}))], "trusted", 1),
    "unknown coding": ([Recv(), Send(DEFLATED)], "coding", 1),
    "503 storm": (serve(reply(503)), "503", 3),
    "429 storm": (serve(reply(429)), "429", 3),
    "503 with a short wait": (serve(reply(503, {"Retry-After": "0"})), "503", 3),
    "503 with a long wait": (serve(reply(503, {"Retry-After": "9999"})), "503", 1),
    "404": (serve(reply(404)), "404", 1),
    "redirect to itself": (serve(reply(302, {"Location": "/"})), "30 redirects", 31),
    "redirect to another scheme": (
        serve(reply(302, {"Location": "file:///etc/passwd"})),
        "redirects to",
        1,
    ),
}


def _read_timeout(name: str) -> float:
    """Return the read time-out for a server of the table: long, unless it stays silent."""
    return 0.1 if name.startswith("stalls") else 60


def _attempts(download: HttpDownload) -> int:
    """Return the number of attempts of a failing download."""
    error = failure(download, DownloadFailed)
    assert error.reason
    assert error.facts is not None
    return error.facts.attempt


class TestNetwork:
    @pytest.mark.parametrize("name", NETWORK)
    def test_for_good(self, raw_server: Any, target: Path, name: str) -> None:
        """A server that keeps failing causes a clear error, and the old file stays alone."""
        script, reason, tries = NETWORK[name]
        server = raw_server([script])
        timeout = Timeout(connect=60, read=_read_timeout(name))
        download = into_file(server.url(), target, timeout=timeout)
        events = record(download)
        error = failure(download)
        assert isinstance(error, DownloadFailed)
        assert re.search(reason, error.reason), error.reason
        assert server.url() in str(error)
        # If nobody waited for the server's response, the server may not have noticed yet.
        server.until(lambda: max(len(server.requests), server.connections) >= tries)
        assert max(len(server.requests), server.connections) == tries
        assert proper(events)
        assert untouched(target)

    @pytest.mark.parametrize("name", [name for name, row in NETWORK.items() if row[2] == 3])
    def test_for_once(self, raw_server: Any, target: Path, name: str) -> None:
        """If the server recovers at the next connection or request, the file is complete."""
        script, _, _ = NETWORK[name]
        storm = "storm" in name or "wait" in name
        answers = iter([script[0].steps[1].data] if storm else [])
        server = raw_server(
            [serve(lambda _: next(answers, WHOLE))] if storm else [script, serve(WHOLE)]
        )
        timeout = Timeout(connect=60, read=_read_timeout(name))
        download = into_file(server.url(), target, timeout=timeout)
        # From then on it answers, even if late.
        download.register(Event.ERROR, lambda _: setattr(timeout, "read", 60))
        events = record(download)
        download()
        assert target.read_bytes() == BODY
        assert list(target.parent.iterdir()) == [target]
        assert proper(events)

    def test_slow_but_sure(self, raw_server: Any, target: Path) -> None:
        """A head and body that arrive bit by bit, each in time, are downloaded."""
        script = [Recv(), Drip(WHOLE[:HEAD], 0.001, 3), Drip(BODY, 0.001, 5000)]
        server = raw_server([script])
        into_file(server.url(), target, timeout=Timeout(read=60))()
        assert target.read_bytes() == BODY

    @pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
    def test_no_such_host(self, target: Path, monkeypatch: Any, scheme: str) -> None:
        """An unknown host name is an error that says so, after the retries."""
        asked = []

        def getaddrinfo(host: Any, *unused: Any, **also_unused: Any) -> Any:
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        cls = FtpDownload if scheme == "ftp" else HttpDownload
        download: Any = cls(f"{scheme}://mirror.invalid/file", FileWriter(target))
        download.retry = quick(total=2)
        error = failure(download, DownloadFailed)
        assert "can't be resolved" in error.reason
        assert "mirror.invalid" in str(error)
        assert asked == ["mirror.invalid"] * 3
        assert untouched(target)

    @pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
    def test_refused(self, target: Path, scheme: str) -> None:
        """A refused connection is an error that says so, after the retries."""
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            url = f"{scheme}://{HOST}:{taken.getsockname()[1]}/file"
            cls = FtpDownload if scheme == "ftp" else HttpDownload
            download: Any = cls(url, FileWriter(target))
            download.retry = quick(total=2)
            error = failure(download, DownloadFailed)
        assert "refused" in error.reason.lower()
        assert error.facts is not None
        assert error.facts.attempt == 3
        assert untouched(target)

    @pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
    def test_tarpit(self, target: Path, scheme: str) -> None:
        """A host that never accepts a connection fails by the connect time-out."""
        with contextlib.ExitStack() as stack:
            tarpit = stack.enter_context(socket.socket())
            tarpit.bind((HOST, 0))
            tarpit.listen(0)
            for _ in range(4):  # its queue takes some before it is full
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(tarpit.getsockname())
            cls = FtpDownload if scheme == "ftp" else HttpDownload
            url = f"{scheme}://{HOST}:{tarpit.getsockname()[1]}/file"
            download: Any = cls(url, FileWriter(target), timeout=Timeout(connect=0.2, read=60))
            download.retry = quick(total=1)
            began = time.monotonic()
            error = failure(download, DownloadFailed)
            # The read time-out wouldn't end it sooner.
            assert time.monotonic() - began < 60
        assert "time-out" in error.reason
        assert untouched(target)

    @pytest.mark.parametrize("ends", [Cut, Reset, Close])
    @pytest.mark.parametrize("hello", [b"", b"\x16\x03\x03", b"\x16\x03\x03\x00\x7a\x02\x00"])
    def test_cut_in_the_handshake(
        self, raw_server: Any, tls: Tls, target: Path, hello: bytes, ends: Any
    ) -> None:
        """A TLS handshake that is cut is retried, as it isn't a refusal."""
        server = raw_server([[Send(hello), ends()]])
        url = server.url().replace("http:", "https:")
        with warnings.catch_warnings():
            # If the reset comes early enough, ssl.SSLSocket doesn't close itself.
            warnings.simplefilter("ignore", ResourceWarning)
            attempts = _attempts(into_file(url, target, ssl=trust(tls.ca)))
            gc.collect()
        assert attempts == 3
        assert untouched(target)

    def test_no_tls_at_all(self, raw_server: Any, tls: Tls, target: Path) -> None:
        """An https URL of a server without TLS fails at once with an error that says so."""
        server = raw_server([[Send(reply(400))]])
        url = server.url().replace("http:", "https:")
        error = failure(into_file(url, target, ssl=trust(tls.ca)), DownloadFailed)
        assert "TLS" in error.reason
        assert server.connections == 1
        assert untouched(target)

    @pytest.mark.parametrize("ends", [Cut, Reset, Close])
    @pytest.mark.parametrize("data", [WHOLE, CHUNKED], ids=["length", "chunks"])
    @pytest.mark.parametrize("left", [1, 5, 1000])
    def test_cut_in_the_body_of_tls(
        self, raw_server: Any, tls: Tls, target: Path, data: bytes, left: int, ends: Any
    ) -> None:
        """A TLS connection that is cut in the body never counts as the end of the file."""
        broken = [Recv(), Send(data[:-left]), ends()]
        server = raw_server([broken, broken, serve(data)], tls=tls.server())
        into_file(server.url(), target, ssl=trust(tls.ca))()
        assert target.read_bytes() == BODY
        target.write_bytes(b"old")
        server = raw_server([broken], tls=tls.server())
        failure(into_file(server.url(), target, ssl=trust(tls.ca)), DownloadFailed)
        assert untouched(target)

    def test_certificate_is_not_tried_again(self, file_server: Any, tls: Tls, target: Path) -> None:
        """An untrusted certificate isn't retried."""
        server = file_server({"/a": BODY}, tls=tls.server(tls.expired))
        failure(into_file(server.url("/a"), target, ssl=trust(tls.ca)), NotAuthorized)
        assert server.connections == 1
        assert untouched(target)

    def test_redirect_loop(self, file_server: Any, target: Path) -> None:
        """A redirect loop ends after 30 redirects."""
        server = file_server({"/a": Redirect("/b"), "/b": Redirect("/c"), "/c": Redirect("/a")})
        error = failure(into_file(server.url("/a"), target), DownloadFailed)
        assert "30 redirects" in error.reason
        assert server.count == 31
        assert untouched(target)

    def test_redirect_to_a_dead_host(self, file_server: Any, target: Path) -> None:
        """A redirect to a port where nobody listens is an error about that, and retried."""
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            dead = f"http://{HOST}:{taken.getsockname()[1]}/x"
            server = file_server({"/a": Redirect(dead)})
            error = failure(into_file(server.url("/a"), target), DownloadFailed)
        assert "refused" in error.reason
        assert server.count == 3
        assert untouched(target)

    def test_all_at_once(self, file_server: Any, tmp_path: Path) -> None:
        """In a batch with all kinds of faults each file is complete or reported as failed."""
        kinds = [
            None,
            CutAfter(1000),
            ResetAfter(1000),
            StallAfter(1000),
            Status(503, {"Retry-After": "0"}),
            CutAfter(5, whole=True),
            Status(404),
            None,
        ]
        requests: Counter[int] = Counter()

        def fault(_: int, request: Request) -> Any:
            number = int(request.path[1:])
            requests[number] += 1
            # At most three for each file, whichever thread runs.
            tried = requests[number]
            return kinds[(number * 7 + tried * 3) % len(kinds)] if tried <= 3 else None

        server = file_server(
            {f"/{n}": File(BODY, etag=f'"{n % 2}"' if n % 3 else None) for n in range(160)},
            faults=fault,
        )
        folder = tmp_path / "out"

        def be_patient(event: Event) -> None:
            # A slow server need not be silent.
            event.download.timeout.read *= 2

        downloads = [
            into_file(server.url(f"/{n}"), folder / str(n), 9, timeout=Timeout(read=0.2))
            for n in range(160)
        ]
        for download in downloads:
            download.register(Event.ERROR, be_patient)
        failed = set()
        with Batch(downloads, concurrent=8) as batch:
            for plan in batch():
                if plan.error:
                    assert isinstance(plan.error, NotFound), plan.error
                    failed.add(Path(plan.download.writer.path).name)
        assert {path.name for path in folder.iterdir()} == {str(n) for n in range(160)} - failed
        assert all(path.read_bytes() == BODY for path in folder.iterdir())
        assert failed


# Disks.

MOUNT = 'mount -t tmpfs -o size={size} none "$0" && {then} exec "$@"'
NAMESPACE = ("unshare", "--map-root-user", "--mount")

ON_DISK = """
import pathlib, resource, sys
from pulpcore.plugin.download.futures import *
url, folder = sys.argv[1:]
path = pathlib.Path(folder)
download = HttpDownload(url, FileWriter(path / "file"))
names = []
for name in ("ERROR", "SUCCEEDED", "FAILED"):
    download.register(name, lambda event: names.append(event.NAME))
try:
    download()
except DownloadFailed as error:
    print(error.reason)
print(*names)
print((path / "file").read_text(), *sorted(item.name for item in path.iterdir()))
many = [HttpDownload(url, FileWriter(path / str(number))) for number in range(30)]
with Batch(many) as batch:
    errors = [plan.error for plan in batch()]
print(len(errors), {type(error).__name__ for error in errors})
print((path / "file").read_text(), *sorted(item.name for item in path.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
"""


def has_namespaces() -> bool:
    """Return whether the test can mount a disk that only it sees."""
    if shutil.which("unshare") is None:
        return False
    command = [*NAMESPACE, "sh", "-c", MOUNT.format(size="64k", then=""), "/tmp", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class TestDisk:
    @pytest.mark.skipif(not has_namespaces(), reason="a disk can't be mounted here")
    @pytest.mark.parametrize(
        ("then", "reason"),
        [("", "No space left"), ('mount -o remount,ro "$0" &&', "Read-only file system")],
        ids=["full", "read-only"],
    )
    def test_disk(self, file_server: Any, tmp_path: Path, then: str, reason: str) -> None:
        """A full or read-only disk is a clear error without retry, and the old file stays."""
        server = file_server({"/a": BIG})
        mount = tmp_path / "disk"
        mount.mkdir()
        script = MOUNT.format(size="128k", then=f'printf old > "$0/file" && {then}')
        wrapper = (*NAMESPACE, "sh", "-c", script, str(mount))
        with program(ON_DISK, server.url("/a"), mount, wrapper=wrapper) as process:
            out, error = process.communicate(timeout=SECONDS)
        assert error == ""
        assert process.returncode == 0
        first, *rest = out.splitlines()
        assert reason in first
        assert "can't write" in first
        assert str(mount / "file") in first
        assert rest == ["ERROR FAILED", "old file", "30 {'DownloadFailed'}", "old file"]
        assert server.count <= 31

    @pytest.mark.parametrize("sizes", [1000, 128 * 1024])
    def test_limit_of_size(self, file_server: Any, tmp_path: Path, sizes: int) -> None:
        """Exceeding the system's limit of file sizes is a clear error without a retry."""
        server = file_server({"/a": BIG})
        (tmp_path / "file").write_text("old")

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (sizes, resource.RLIM_INFINITY))

        with program(ON_DISK, server.url("/a"), tmp_path, preexec_fn=limit) as process:
            out, error = process.communicate(timeout=SECONDS)
        assert error == ""
        first, *rest = out.splitlines()
        assert "too large" in first
        assert rest == ["ERROR FAILED", "old file", "30 {'DownloadFailed'}", "old file"]

    @pytest.mark.parametrize("where", ["file", "new/sub/file"])
    def test_no_permission(self, file_server: Any, target: Path, where: str) -> None:
        """A folder without write permission is an error that says so."""
        server = file_server({"/a": BODY})
        target.parent.chmod(0o555)
        with unprivileged(target.parent):
            error = failure(into_file(server.url("/a"), target.parent / where), DownloadFailed)
        target.parent.chmod(0o755)
        assert "Permission denied" in error.reason
        assert str(target.parent / where) in error.reason
        assert server.count == 0
        assert untouched(target)

    @pytest.mark.parametrize("what", ["folder", "folder/", "file/file", "pipe", "circle", ""])
    def test_no_place(self, file_server: Any, target: Path, monkeypatch: Any, what: str) -> None:
        """A target path that can't be a file is an error before anything is sent."""
        server = file_server({"/a": BODY})
        monkeypatch.chdir(target.parent)
        Path("folder").mkdir()
        os.mkfifo("pipe")
        Path("circle").symlink_to("circle")
        before = sorted(target.parent.rglob("*"))
        download = HttpDownload(server.url("/a"), FileWriter(what))
        error = failure(download, DownloadFailed)
        assert "can't write to" in error.reason
        assert server.count == 0
        assert sorted(target.parent.rglob("*")) == before
        assert target.read_bytes() == b"old"

    @pytest.mark.parametrize("when", [Event.REPLIED, Event.FETCHED])
    @pytest.mark.parametrize("resume", [False, True])
    def test_folder_vanishes(
        self, file_server: Any, target: Path, when: str, resume: bool, no_leaks: None
    ) -> None:
        """If the folder is removed during the download, that fails and the folder stays away."""
        server = file_server({"/a": File(BODY, etag='"1"')})
        download = HttpDownload(server.url("/a"), FileWriter(target, resume=resume))
        events = record(download)
        download.register(when, lambda _: shutil.rmtree(target.parent, ignore_errors=True))
        error = failure(download, DownloadFailed)
        assert "can't write to" in error.reason
        assert re.search("No such file|taken away", error.reason)
        assert proper(events)
        assert not target.parent.exists()

    def test_file_in_the_way(self, file_server: Any, target: Path) -> None:
        """A folder that appears at the target path during the download stays, and is an error."""
        server = file_server({"/a": BODY})
        download = into_file(server.url("/a"), target)

        def appear(_: Event) -> None:
            target.unlink(missing_ok=True)
            (target / "sub").mkdir(parents=True, exist_ok=True)

        download.register(Event.FETCHED, appear)
        assert "can't write to" in failure(download, DownloadFailed).reason
        assert (target / "sub").is_dir()
        assert list(target.parent.iterdir()) == [target]

    def test_working_directory_vanishes(self, file_server: Any, tmp_path: Path) -> None:
        """A relative target in a removed working directory is an error."""
        server = file_server({"/a": BODY})
        code = """
import os, sys
from pulpcore.plugin.download.futures import *
os.chdir(sys.argv[2])
os.rmdir(sys.argv[2])
try:
    HttpDownload(sys.argv[1], FileWriter("file"))()
except DownloadFailed as error:
    print(error.reason)
"""
        (tmp_path / "gone").mkdir()
        with program(code, server.url("/a"), tmp_path / "gone") as process:
            out, error = process.communicate(timeout=SECONDS)
        assert error == ""
        assert "can't write to" in out


# Processes.

BATCH = """
import signal, sys
from pulpcore.plugin.download.futures import *
signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
url, folder = sys.argv[1:]
downloads = [HttpDownload(f"{url}/{name}", FileWriter(f"{folder}/{name}")) for name in "abcdefgh"]
try:
    with Batch(downloads, concurrent=4) as batch:
        for plan in batch():
            print("plan", plan.download.url[-1], plan.error, flush=True)
finally:
    print("left", flush=True)
"""


class TestProcess:
    @pytest.mark.usefixtures("from_terminal")
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    def test_signal(self, file_server: Any, tmp_path: Path, number: int) -> None:
        """A signal during a download keeps old files complete; only SIGKILL leaves a part."""
        names = "abcdefgh"
        server = file_server(
            {f"/{name}": BIG for name in names},
            faults=lambda _, request: None if request.path == "/a" else StallAfter(100_000),
        )
        for name in names:
            (tmp_path / name).write_bytes(b"old")
        with program(BATCH, server.url(""), tmp_path) as process:
            assert process.stdout is not None
            while not process.stdout.readline().startswith("plan a None"):
                pass
            server.until(lambda: server.count >= 4)
            process.send_signal(number)
            out, _ = process.communicate(timeout=SECONDS)
        contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        left = {name for name in contents if name not in names}
        assert {name: contents[name] for name in names} == dict.fromkeys(names, b"old") | {"a": BIG}
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
            assert all(name.startswith(".download-") for name in left)
        else:
            assert process.returncode in {signal.SIGINT: (-2, 130), signal.SIGTERM: (143,)}[number]
            assert out.splitlines()[-1] == "left"
            assert left == set()

    def test_next_run(self, file_server: Any, tmp_path: Path) -> None:
        """What a killed process left behind doesn't disturb the next run."""
        server = file_server(
            {f"/{name}": BIG for name in "abcdefgh"}, faults=lambda *_: StallAfter(100_000)
        )
        with program(BATCH, server.url(""), tmp_path) as process:
            server.until(lambda: server.count >= 4)
            process.kill()
            process.communicate(timeout=SECONDS)
        server.faults = {}
        with program(BATCH, server.url(""), tmp_path) as process:
            _, error = process.communicate(timeout=SECONDS)
        assert (process.returncode, error) == (0, "")
        assert all((tmp_path / name).read_bytes() == BIG for name in "abcdefgh")


@pytest.fixture
def context() -> Any:
    """Make a context that downloads share."""
    with contextlib.closing(Context()) as context:
        yield context


def shared(context: Context, server: FileServer, path: str = "/a") -> HttpDownload:
    """Make a download with this context."""
    download = into_memory(server.url(path))
    download.context = context
    download.validations.append(DigestValidation("sha256", hashlib.sha256(BODY).hexdigest()))
    return download


class TestFork:
    def test_idle_connection(self, file_server: Any, context: Context) -> None:
        """A forked child uses no connection of its parent, which keeps using its own."""
        server = file_server({"/a": BODY})
        shared(context, server)()
        assert forked(shared(context, server)) == 0
        assert server.connections == 2
        shared(context, server)()
        assert (server.connections, server.count) == (2, 3)

    @pytest.mark.parametrize("secure", [False, True])
    def test_in_a_handler(self, file_server: Any, context: Context, tls: Tls, secure: bool) -> None:
        """After a fork in a handler the child can download, and the parent's download goes on."""
        server = file_server({"/a": BODY}, tls=tls.server() if secure else None)
        statuses = []

        def child() -> None:
            download = shared(context, server)
            download.ssl = trust(tls.ca)
            download()

        download = shared(context, server)
        download.ssl = trust(tls.ca)
        download.register(Event.FETCHED, lambda _: statuses or statuses.append(forked(child)))
        assert content(download) == BODY
        assert statuses == [0]
        assert (server.connections, server.count) == (2, 2)

    def test_while_a_batch_runs(self, file_server: Any, tmp_path: Path) -> None:
        """Forking repeatedly during a batch hangs no child and doesn't disturb the batch."""
        server = file_server({f"/{n}": BODY for n in range(400)}, record=False)
        context = Context()
        downloads = [
            HttpDownload(server.url(f"/{n}"), FileWriter(tmp_path / str(n))) for n in range(400)
        ]
        statuses, errors = [], []
        with Batch(downloads, concurrent=8, backlog=16, context=context) as batch:
            for number, plan in enumerate(batch()):
                errors.append(plan.error)
                if number % 20 == 0:
                    statuses.append(forked(lambda: _download_in_child(context, server)))
        context.close()
        assert errors == [None] * 400
        assert statuses == [0] * 20
        assert all((tmp_path / str(n)).read_bytes() == BODY for n in range(400))

    def test_child_leaves_the_batch(self, raw_server: Any, tmp_path: Path) -> None:
        """A forked child that leaves the ``with`` of its parent's batch doesn't stop it.

        Nor does it wait for threads that exist only in the parent.
        """
        go_on = threading.Event()
        half = [Recv(), Send(WHOLE[:-1000]), Wait(go_on), Send(WHOLE[-1000:])]
        server = raw_server([half])
        downloads = [into_file(server.url(), tmp_path / str(n), tries=0) for n in range(8)]
        errors = []
        with Batch(downloads, concurrent=4) as batch:
            plans = batch()
            consumer = threading.Thread(target=lambda: errors.extend(p.error for p in plans))
            consumer.start()
            server.until(lambda: sum(bool(log.sent) for log in server.logs) >= 4)
            status = forked(batch.shutdown)
            go_on.set()
            consumer.join(SECONDS)
        assert status == 0
        assert errors == [None] * 8
        assert all((tmp_path / str(n)).read_bytes() == BODY for n in range(8))

    def test_while_the_timer_is_at_work(self, file_server: Any, context: Context) -> None:
        """A forked child has its own timer, also while the parent's timer is running."""
        server = file_server({"/a": BODY})
        shared(context, server)()

        def work() -> None:
            download = shared(context, server)
            download.timeout = Timeout(total=60, least_speed=1)
            download()

        alarm = timer.set(60, print)
        assert forked(work) == 0
        timer.cancel(alarm)
        work()

    def test_batch_in_a_child(self, file_server: Any, tmp_path: Path) -> None:
        """A forked child can run a batch of its own with the parent's context."""
        server = file_server({f"/{n}": BODY for n in range(20)})
        context = Context()

        def work() -> None:
            downloads = [into_file(server.url(f"/{n}"), tmp_path / str(n)) for n in range(20)]
            with Batch(downloads, context=context) as batch:
                for plan in batch():
                    plan.result()

        work()
        assert forked(work) == 0
        work()
        context.close()


def _download_in_child(context: Context, server: FileServer) -> None:
    shared(context, server, "/1")()


class TestHandlers:
    """Exceptions of handlers, validations and writers at every call."""

    @pytest.mark.parametrize("error", [KeyError("bug"), DownloadFailed("on purpose"), OSError(5)])
    @pytest.mark.parametrize("call", [0, 1, 3])
    def test_validation(self, file_server: Any, target: Path, call: int, error: Exception) -> None:
        """A validation that raises at any call causes one Failed event and no file."""
        server = file_server({"/a": BODY})
        download = into_file(server.url("/a"), target, tries=0)
        events = record(download)
        download.validations.append(_Raising("sha256", "0" * 64, call, error))
        with pytest.raises((type(error), DownloadError)):
            download()
        assert proper(events)
        assert untouched(target)

    @pytest.mark.parametrize("method", ["open", "append", "close"])
    @pytest.mark.parametrize("error", [KeyError("bug"), OSError(28, "full")])
    def test_writer(
        self, file_server: Any, target: Path, method: str, error: Exception, monkeypatch: Any
    ) -> None:
        """A writer that raises in any method causes one Failed event, no file, nothing open."""
        server = file_server({"/a": BODY})
        download = into_file(server.url("/a"), target, tries=0)
        events = record(download)

        def fail(*unused: Any) -> None:
            raise error

        monkeypatch.setattr(download.writer, method, fail)
        with pytest.raises((type(error), DownloadError)) as caught:
            download()
        assert isinstance(caught.value, DownloadFailed) is isinstance(error, OSError)
        assert proper(events)
        assert untouched(target)


class _Raising(DigestValidation):
    def __init__(self, algorithm: str, digest: str, call: int, error: Exception):
        super().__init__(algorithm, digest)
        self._call = call
        self._error = error
        self._calls = 0

    def update(self, buffer: bytes) -> None:
        """Raise at a given call."""
        self._calls += 1
        if self._calls > self._call:
            raise self._error

    def reset(self) -> None:
        """Begin again."""
