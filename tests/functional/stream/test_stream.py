"""Downloads that are read as a file while they are fetched, from servers that misbehave."""

import random
import tarfile
import threading
from io import BytesIO

import pytest
from http_tools import names, quick, record
from servers.files import CutAfter, File, StallAfter

from pulpcore.plugin.download.futures import (
    DigestValidation,
    DownloadError,
    DownloadFailed,
    Event,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
    NotFound,
    Timeout,
)
from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.engine import outlet

CONTENT = random.Random(0).randbytes(1_500_000)
ETAG = {"etag": '"1"'}


@pytest.fixture(autouse=True)
def no_polling(monkeypatch):
    """Let a thread that isn't woken sleep for so long that the test fails."""
    monkeypatch.setattr(outlet, "HEARING", 1000)


def streamed(url, writer=None, **options):
    """Make a download that retries at once."""
    download = HttpDownload(url, writer, **options)
    download.retry = quick(9)
    return download


def cut_twice(index, request):
    """Break the first two replies, after different numbers of bytes."""
    return CutAfter(400_000 + 300_000 * index) if index < 2 else None


def test_goes_on_after_a_break(file_server, tmp_path):
    """If a transfer breaks twice, it resumes, and reader and file get each byte once."""
    server = file_server({"/": File(CONTENT, **ETAG)}, faults=cut_twice)
    with streamed(server.url("/"), tmp_path / "file").stream() as file:
        assert b"".join(file.iter_content(10_000)) == CONTENT
    assert (tmp_path / "file").read_bytes() == CONTENT
    first, *others = [request.header("Range") for request in server.requests]
    assert first is None
    assert len(others) == 2
    assert all(others)


def test_starts_again_without_validator(file_server):
    """Without a validator the transfer restarts, and the reader continues where it was."""
    server = file_server({"/": CONTENT}, faults=cut_twice)
    download = streamed(server.url("/"))
    events = record(download)
    with download.stream() as file:
        assert b"".join(file.iter_content(10_000)) == CONTENT
    assert names(events).count(Event.RESTARTED) == 2
    assert [request.header("Range") for request in server.requests] == [None] * 3


@pytest.mark.parametrize("options", [{}, ETAG])
def test_another_version(file_server, options, tmp_path):
    """A file that changes between two attempts raises, however much of it was read."""
    server = file_server({"/": File(CONTENT, **options)}, faults=cut_twice)
    download = streamed(server.url("/"), tmp_path / "file")
    other = File(CONTENT[::-1], **dict.fromkeys(options, '"2"'))
    download.register(Event.ERROR, lambda event: server.files.update({"/": other}))
    with download.stream() as file, pytest.raises(DownloadFailed, match="differs from what"):
        file.read()
    assert list(tmp_path.iterdir()) == []


def test_not_found(file_server):
    """A 404 is raised by the first read and by each later one."""
    server = file_server({})
    with streamed(server.url("/")).stream() as file:
        for _ in range(2):
            with pytest.raises(NotFound) as caught:
                file.read(1)
    assert caught.value.download.status == 404


def test_head(file_server):
    """A HEAD request is an empty stream, with a reply."""
    download = streamed(file_server({"/": CONTENT}).url("/"), method="HEAD")
    with download.stream() as file:
        assert file.read() == b""
    assert download.reply.headers["Content-Length"] == str(len(CONTENT))


def test_goes_on_with_what_an_earlier_run_left(file_server, tmp_path):
    """A stream begins with what an earlier run has saved, and only the rest is fetched."""
    server = file_server({"/": File(CONTENT, **ETAG)}, faults={0: CutAfter(900_000)})
    broken = HttpDownload(server.url("/"), FileWriter(tmp_path / "file", resume=True))
    broken.retry = None
    with pytest.raises(DownloadFailed):
        broken()
    writer = FileWriter(tmp_path / "file", resume=True)
    with streamed(server.url("/"), writer).stream() as file:
        assert file.read() == CONTENT
    assert int(server.requests[-1].header("Range")[6:-1]) > 0
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_left_stream_is_resumed(file_server, tmp_path):
    """If a resumable stream is left early, a later run continues its partial file."""
    server = file_server({"/": File(CONTENT, **ETAG)})
    with streamed(server.url("/"), FileWriter(tmp_path / "file", resume=True)).stream() as file:
        file.read(100_000)  # what is fetched ahead of it doesn't reach the end
    assert not (tmp_path / "file").exists()
    streamed(server.url("/"), FileWriter(tmp_path / "file", resume=True))()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1].header("Range") is not None


def test_closed_while_the_server_stalls(file_server):
    """`close` interrupts a read from a silent server at once."""
    server = file_server({"/": CONTENT}, faults={0: StallAfter(1000)})
    download = streamed(server.url("/"), timeout=Timeout(read=None))
    file = download.stream()
    first = threading.Event()
    download.register(Event.FETCHED, lambda event: first.set())
    closing = threading.Thread(target=lambda: (first.wait(), file.close()))
    file.__enter__()
    closing.start()
    with pytest.raises((DownloadFailed, ValueError), match="closed"):
        file.read()
    closing.join()


def test_200_at_once(file_server):
    """200 streams that are read in turn are all right, and each fetches only a little ahead."""
    content = CONTENT[:200_000]
    server = file_server({"/": File(content, **ETAG)}, record=False)
    ahead = []

    def stream():
        download = streamed(server.url("/"))
        download.BLOCK = 4096
        download.register(
            Event.FETCHED, lambda event: ahead.append(event.offset + 4096 - file.tell())
        )
        file = download.stream()
        return file.__enter__()

    files = [stream() for _ in range(200)]
    found = [BytesIO() for _ in files]
    while not all(file.closed for file in files):
        for file, copy in zip(files, found, strict=True):
            if not file.closed:
                copy.write(buffer := file.read(20_000))
                if not buffer:
                    file.__exit__(None, None, None)
    assert {copy.getvalue() for copy in found} == {content}
    assert max(ahead) <= 20_000 + 4 * 4096


def test_tar(file_server, tmp_path):
    """`tarfile` reads an archive member by member, and the file is saved beside it."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for number in range(20):
            member = tarfile.TarInfo(f"{number}")
            member.size = 60_000
            tar.addfile(member, BytesIO(CONTENT[number * 60_000 :]))
    server = file_server({"/": File(archive.getvalue(), **ETAG)}, faults=cut_twice)
    download = streamed(server.url("/"), tmp_path / "file")
    with download.stream() as file:
        with tarfile.open(fileobj=file, mode="r|gz") as tar:
            content = b"".join(tar.extractfile(member).read() for member in tar)
        file.verify()
    assert content == CONTENT[: 20 * 60_000]
    assert (tmp_path / "file").read_bytes() == archive.getvalue()


def test_plain_tar_is_published_when_left(file_server, tmp_path):
    """`tarfile` reads a plain archive to its last byte, and leaving the `with` publishes it."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    server = file_server({"/": archive.getvalue()})
    with streamed(server.url("/"), tmp_path / "file").stream() as file:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            assert tar.getnames() == ["empty"]
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == archive.getvalue()


def test_wrong_tar_never_looks_complete(file_server):
    """`tarfile` can't read an archive with a wrong digest to its end."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(member := tarfile.TarInfo("large"), BytesIO())
        member.size = 600_000
        tar.addfile(member, BytesIO(CONTENT))
    download = streamed(file_server({"/": archive.getvalue()}).url("/"))
    download.validations.append(DigestValidation("sha256", "0" * 64))
    with (
        download.stream() as file,
        pytest.raises(DownloadError),
        tarfile.open(fileobj=file, mode="r|") as tar,
    ):
        tar.getnames()


def test_file_and_ftp(ftp_server, tmp_path):
    """Files of the file system and of FTP servers are streams as well."""
    (tmp_path / "a").write_bytes(CONTENT)
    for download in (
        FileDownload(f"file://{tmp_path}/a", None),
        FtpDownload(ftp_server(tmp_path).url("/a"), None),
    ):
        with download.stream() as file:
            assert file.read() == CONTENT


def test_shares_connections(file_server):
    """A stream shares connections with other downloads by their context."""
    server = file_server({"/": CONTENT})
    context = Context()
    for _ in range(3):
        download = streamed(server.url("/"))
        download.context = context
        with download.stream() as file:
            assert file.read() == CONTENT
    context.close()
    assert server.connections == 1
