"""Downloads that are read as a file while they are fetched, without a network."""

import csv
import gc
import hashlib
import io
import os
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from http_tools import names, quick, record
from interrupts import at_each_place
from stubs import SECONDS, Nop, Stub

from pulpcore.plugin.download.futures import (
    BufferWriter,
    DigestMismatch,
    DigestValidation,
    Download,
    DownloadFailed,
    Event,
    SizeMismatch,
    SizeValidation,
    Timeout,
)
from pulpcore.plugin.download.futures.engine import run as run_module
from pulpcore.plugin.download.futures.engine.attempt import Attempt, record_of
from pulpcore.plugin.download.futures.engine.claim import Claims
from pulpcore.plugin.download.futures.engine.outlet import Outlet
from pulpcore.plugin.download.futures.engine.run import Run
from pulpcore.plugin.download.futures.error import transient

LINES = b"one\ntwo and six\n\nlast"
PIECES = [b"one\ntw", b"o and", b" six\n", b"\nlas", b"t"]


def of(*pieces, writer=None):
    """Make a download whose content comes in these pieces."""

    def send(download):
        for piece in pieces:
            download._write(piece)

    return Stub(send, writer)


def attempts(*contents, writer=None):
    """Make a download that breaks after the pieces of each content but the last, and retries."""
    left = list(contents)

    def send(download):
        pieces = left.pop(0)
        for piece in pieces:
            download._write(piece)
        if left:
            raise transient("it broke")

    download = Stub(send, writer)
    download.retry = quick(9)
    return download


def wait_until(condition):
    """Wait until another thread has done something; there is nothing to be woken by."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("size", [1, 2, 7, 100, None, -1])
def test_read(size):
    """Reads return as many bytes as requested until the end, however the content arrives."""
    with of(*PIECES).stream() as file:
        found = list(file.iter_content(size))
        assert b"".join(found) == LINES
        assert file.tell() == len(LINES)
        assert all(len(piece) == size for piece in found[:-1])
        assert file.read(0) == file.read() == file.read(3) == file.read1() == file.readline() == b""


def test_read_what_is_there():
    """`read1` returns one buffer or a part of it, and never waits for more."""
    with of(*PIECES).stream() as file:
        assert file.read1(2) == b"on"
        assert file.read1(100) == b"e\ntw"
        assert file.read1() == b"o and"


def test_lines():
    """A stream is an iterator over lines that may span buffers, as every file is."""
    expected = io.BytesIO(LINES).readlines()
    with of(*PIECES).stream() as file:
        assert list(file) == expected
    with of(*PIECES).stream() as file:
        assert [file.readline(2), file.readline(2), file.readline(9)] == [
            b"on",
            b"e\n",
            b"two and s",
        ]
        assert file.readline() == b"ix\n"
        assert file.read() == b"\nlast"


def test_is_a_file():
    """A stream is readable, can't seek, and can be filled into a buffer or decoded."""
    with of(b"a,b\nc", b",d\n").stream() as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, False, False)
        assert repr(file) == f"<Stream of {file.name}>" == "<Stream of test://stub>"
        buffer = bytearray(5)
        assert file.readinto(buffer) == 5
        assert buffer == b"a,b\nc"
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
    with of(b"a,b\nc", b",d\n").stream() as file:
        assert list(csv.reader(io.TextIOWrapper(file))) == [["a", "b"], ["c", "d"]]


def test_closed():
    """A closed stream can't be read, can be closed again, and never starts a download."""
    download = of(b"a")
    file = download.stream()
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with pytest.raises(ValueError, match="closed"):
        file.__enter__()
    assert record_of(download).run is None


def test_without_with():
    """The first read starts the download, and the end of the content ends its thread."""
    file = of(b"a", b"b").stream()
    assert file.read() == b"ab"


def test_without_content():
    """A download that does nothing, as in plugins of 2017, is an empty stream."""
    for download in Nop(), of():
        with download.stream() as file:
            assert file.read() == b""


@pytest.mark.parametrize("is_size", [True, False])
def test_mismatch(tmp_path, is_size):
    """If a validation fails, each read from before the last buffer on raises."""
    download = of(b"aa", b"bb", b"cc", writer=tmp_path / "file")
    kind = SizeMismatch if is_size else DigestMismatch
    download.validations.append(
        SizeValidation(7) if is_size else DigestValidation("sha256", "0" * 64)
    )
    events = record(download)
    with download.stream() as file:
        assert file.read(4) == b"aabb"
        for read in file.read1, file.read, file.readline, file.verify, lambda: next(file):
            with pytest.raises(kind) as caught:
                read()
            assert caught.value.download is download
    assert names(events)[-2:] == [Event.ERROR, Event.FAILED]
    assert os.listdir(tmp_path) == []


def test_published_at_end(tmp_path):
    """The file is published when a read returns the end, and not earlier."""
    path = tmp_path / "file"
    download = of(*PIECES, writer=path)
    events = record(download)
    with download.stream() as file:
        assert file.read(len(LINES)) == LINES
        assert not path.exists()
        assert file.read(1) == b""
        assert path.read_bytes() == LINES
        assert names(events)[-1] == Event.SUCCEEDED


def test_published_after_last_byte(tmp_path):
    """A reader that stops after the last byte and leaves the `with` block publishes the file."""
    path = tmp_path / "file"
    download = of(*PIECES, writer=path)
    with download.stream() as file:
        file.read(len(LINES))
    assert path.read_bytes() == LINES


def test_not_published_after_exception(tmp_path):
    """An exception that leaves the `with` cancels the download, even after the last byte."""
    download = of(*PIECES, writer=tmp_path / "file")
    events = record(download)
    with pytest.raises(ZeroDivisionError), download.stream() as file:
        1 / len(file.read(len(LINES)) and b"")
    assert names(events)[-1] == Event.FAILED
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, len(LINES) - 1])
def test_left_early(tmp_path, size):
    """Leaving the `with` before the last byte raises nothing, and publishes nothing."""
    download = of(*PIECES, writer=tmp_path / "file")
    events = record(download)
    with download.stream() as file:
        file.read(size)
    assert names(events)[-1] == Event.FAILED
    assert os.listdir(tmp_path) == []


def test_verify(tmp_path):
    """`verify` reads the rest, and publishes the content."""
    path = tmp_path / "file"
    with of(*PIECES, writer=path).stream() as file:
        file.read(3)
        file.verify()
        # After an interrupt a thread may be asked twice to run it.
        file._is_started = False
        file._start()
        assert path.read_bytes() == LINES


def test_unwritable(tmp_path):
    """If the file can't be published, the read that would return the end raises."""
    path = tmp_path / "file"
    file = of(b"a", b"b", writer=path).stream()
    assert file.read(2) == b"ab"
    path.mkdir()
    with pytest.raises(DownloadFailed, match="can't write"):
        file.read()
    # A program that catches the error must not take the file for saved.
    with pytest.raises(DownloadFailed, match="can't write"):
        file.__exit__(None, None, None)


def test_closed_by_another_thread():
    """If another thread calls `close`, a waiting read raises."""
    sending, released = threading.Event(), threading.Event()

    def send(download):
        download._write(b"a")
        sending.set()
        while not released.wait(0.001):
            download._write(b"")
        download._write(b"b")

    download = Stub(send)
    events = record(download)
    with download.stream() as file:
        outcome = []

        def read():
            with pytest.raises(DownloadFailed, match="closed before its end") as caught:
                file.read()
            outcome.append(caught.value)

        thread = threading.Thread(target=read)
        thread.start()
        assert sending.wait(SECONDS)
        wait_until(lambda: "reader" in file._outlet._waiting)
        closing = threading.Thread(target=file.close)
        closing.start()
        thread.join(SECONDS)
        released.set()
        closing.join(SECONDS)
        assert outcome[0].download is download
    assert names(events)[-1] == Event.FAILED


def test_closed_by_handler():
    """A handler may close the stream. `close` doesn't wait for the handler's own thread then."""
    download = of(b"a", b"b", b"c")
    file = download.stream()
    download.register(Event.FETCHED, lambda event: file.close())
    with pytest.raises((DownloadFailed, ValueError), match="closed"):
        file.read()
    wait_until(lambda: not file._workers._workers)


def test_dropped():
    """A stream without references cancels its download."""
    download = of(*[b"x"] * 9)
    events = record(download)
    file = download.stream()
    assert file.read(1) == b"x"
    del file
    gc.collect()
    wait_until(lambda: names(events)[-1] == Event.FAILED)


def test_memory_is_bounded():
    """A download waits for its reader when three buffers are unread, whatever their size."""
    download = of(*[b"x"] * 100)
    count = []
    download.register(Event.FETCHED, lambda event: count.append(event.offset))
    with download.stream() as file:
        for read in range(20):
            wait_until(lambda: not file._outlet.has_room())
            assert len(count) <= read + 3
            file.read(1)
        assert len(file.read()) == 80


def test_pauses_count_for_no_limit(monkeypatch):
    """Time in which a reader pauses counts neither for the total limit nor for the least speed."""
    download = of(*[b"x"] * 9)
    download.timeout = Timeout(total=100)
    with download.stream() as file:
        wait_until(lambda: not file._outlet.has_room())
        run = record_of(download).run
        wait_until(lambda: run._alarm.is_cancelled)
        attempt = Attempt.of(download)
        assert [attempt.progress(), attempt.progress()] == [None, None]
        assert file.read() == b"x" * 9

    now = [1000.0]
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    run = Run(None, Claims(None for _ in range(0)))
    run.limit(10)
    now[0] += 4
    run.pause(lambda: now.__setitem__(0, now[0] + 500))
    assert run.deadline - now[0] == 6
    assert not run._alarm.is_cancelled
    run.close()


def test_starts_again():
    """If the content restarts, the reader gets each byte once."""
    download = attempts([b"one\n", b"two\n"], [b"on"], [b"o", b"ne\nt", b"wo\nthree"])
    with download.stream() as file:
        assert file.read() == b"one\ntwo\nthree"


def test_starts_again_before_it_was_read():
    """If the content changes before anything was read, the new content is read."""
    with attempts([b"one"], [b"two"]).stream() as file:
        assert file.read() == b"two"


@pytest.mark.parametrize("second", [[b"oNe\n", b"two"], [b"on"], []])
def test_starts_again_with_other_content(tmp_path, second):
    """If the content changes after bytes were read, the read raises, and nothing is published."""
    download = attempts([b"one\n", b"two\n"], second, writer=tmp_path / "file")
    with download.stream() as file:
        assert file.read(4) == b"one\n"
        with pytest.raises(DownloadFailed, match="differs from what was read"):
            file.read()
    assert os.listdir(tmp_path) == []


def test_repaired_with_other_content():
    """A handler's repair doesn't make a stream continue with other content."""
    download = attempts([b"one\n", b"two\n"], [b"three", b"four"], [b"three", b"four"])
    download.register(Event.ERROR, lambda event: setattr(event, "repaired", True))
    with download.stream() as file, pytest.raises(DownloadFailed, match="differs"):
        file.read()


@pytest.mark.parametrize("errors", [1, 2])
def test_error_is_swallowed(errors):
    """If a class overrides `__call__` and catches the error, half a file still isn't complete."""

    class Quiet(Stub):
        def __call__(self):
            with suppress(DownloadFailed):
                super().__call__()

    left = [DownloadFailed("it broke"), transient("it broke")][:errors]

    def send(download):
        download._write(b"a")
        if len(left) > 1:
            download._write(b"b")
        raise left.pop()

    download = Quiet(send)
    download.retry = quick(9)
    with download.stream() as file, pytest.raises(DownloadFailed, match="before its content"):
        file.read()


def test_called_afterwards():
    """A download that was read as a stream can be called afterwards, and waits for no reader."""
    download = of(*PIECES, writer=BufferWriter())
    with download.stream() as file:
        assert file.read() == LINES
    download()
    assert download.writer.content() == LINES.decode()


def test_called_twice():
    """A class that overrides `__call__` may run the download again, and the stream continues."""

    class Stubborn(Stub):
        def __call__(self):
            try:
                super().__call__()
            except DownloadFailed:
                super().__call__()

    download = Stubborn(None)
    download.send = attempts([b"a", b"b"], [b"a", b"b", b"c"]).send
    with download.stream() as file:
        assert file.read() == b"abc"


def test_existing_file_is_fetched(tmp_path):
    """`skip_existing` doesn't make a stream empty: its reader wants the content."""
    path = tmp_path / "file"
    path.write_bytes(b"ab")
    download = of(b"a", b"b", writer=path)
    download.skip_existing = True
    digest = hashlib.sha256(b"ab").hexdigest()
    download.validations += [SizeValidation(2), DigestValidation("sha256", digest)]
    with download.stream() as file:
        assert file.read() == b"ab"


def test_bug():
    """An exception that is no DownloadError reaches the reader as it is."""
    with of(b"a", "b").stream() as file, pytest.raises(TypeError):
        file.read()


def test_runs_already():
    """A download that is read as a stream can't be run a second time meanwhile."""
    download = of(b"a", b"b", b"c", b"d")
    with download.stream() as file:
        assert file.read(1) == b"a"
        with pytest.raises(RuntimeError, match="running already"):
            download()
        with download.stream() as other, pytest.raises(RuntimeError, match="running already"):
            other.read()
        assert file.read() == b"bcd"
    with download.stream() as file:
        assert file.read() == b"abcd"


def test_part_of_other_work():
    """Cancelling the work that a stream is part of cancels the stream."""
    inner = of(*[b"x"] * 9)
    caught = []

    def send(download):
        with inner.stream() as file:
            assert file.read(1) == b"x"
            record_of(download).run.token.cancel("enough")
            with pytest.raises(DownloadFailed, match="enough"):
                file.read()
            caught.append(file)

    with pytest.raises(DownloadFailed, match="enough"):
        Stub(send)()
    assert caught


def test_forked():
    """A forked child, which lacks the download's thread, can't read. The parent can."""
    with of(b"a", b"b", b"c").stream() as file:
        assert file.read(1) == b"a"
        child = os.fork()
        if not child:
            try:
                file.read()
            except RuntimeError:
                file.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert file.read() == b"bc"


def test_interrupted():
    """After Ctrl-C at any place, a stream continues without a gap or raises. It never hangs."""

    def scenario(armed):
        found = b""
        with of(*PIECES).stream() as file:
            with armed:
                found = file.read(9)
            position = file.tell()
            with suppress(DownloadFailed):
                rest = file.read()
                assert found + rest == LINES or (not found and LINES[position:] == rest)

    assert at_each_place(scenario) > 20


def test_interrupted_while_it_opens():
    """After Ctrl-C while a stream is opened or closed no thread is left."""

    def scenario(armed):
        with armed, of(*PIECES).stream() as file:
            file.read(3)

    assert at_each_place(scenario) > 20


def test_no_secret():
    """The representation of a stream shows no secret of the URL."""
    download = Stub(url="test://me:secret@host/?token=secret")
    assert "secret" not in repr(download.stream())
    assert issubclass(Stub, Download)


def test_cancelled_as_it_ends():
    """If the download ends during a check for cancellation, that isn't an end of file."""

    class Token:
        @property
        def reason(self):
            outlet.end(DownloadFailed("enough"))
            return "enough"

    reader = io.BytesIO()
    outlet = Outlet(Token(), reader)
    with pytest.raises(DownloadFailed, match="enough"):
        outlet.check()
