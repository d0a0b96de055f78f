"""Tests of writers: what they publish and when, and that failures leave nothing behind."""

import contextlib
import copy
import errno
import gc
import gzip
import io
import os
import pickle
import socket
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupts import at_each_place

from pulpcore.plugin.download.futures import FileDownload
from pulpcore.plugin.download.futures.storage import staging
from pulpcore.plugin.download.futures.storage.descriptor import DescriptorFile
from pulpcore.plugin.download.futures.writer import BufferWriter, FileWriter, Writer

OLD = b"old content"
NEW = b"new"
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Make an empty working directory for the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder):
    """Return the path and content of each file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def write(writer, *buffers):
    """Write a content and publish it."""
    with writer:
        for buffer in buffers or (NEW,):
            assert writer.append(buffer) == len(buffer)


def temporary(folder):
    """Return the temporary file in a folder."""
    (path,) = Path(folder).glob(".download-*")
    return path


def kind(value):
    """Return the id of a parameter: its class name, which is the same in each process."""
    return type(value).__name__


class Pipe(io.RawIOBase):
    """A file object that can't seek."""

    def __init__(self):
        self.content = b""

    def writable(self):
        """Return true."""
        return True

    def write(self, buffer):
        """Record the bytes."""
        self.content += bytes(buffer)
        return len(buffer)


class Slow(io.BytesIO):
    """A raw file that accepts only a few bytes at a time."""

    def __init__(self, most, total=1000):
        super().__init__()
        self.most = most
        self.total = total

    def write(self, buffer):
        """Accept a part."""
        part = bytes(buffer)[: min(self.most, self.total)]
        self.total -= len(part)
        return super().write(part)


class Sink:
    """An object with only a write(), which returns nothing."""

    def __init__(self):
        self.content = b""

    def write(self, buffer):
        """Record the bytes."""
        self.content += buffer


class Busy(Pipe):
    """A non-blocking file object that accepts nothing at the second call."""

    def write(self, buffer):
        """Accept one byte, then nothing."""
        return None if self.content else super().write(bytes(buffer)[:1])


# Writer


def test_given_file():
    """Writer writes to the caller's file object and leaves it open."""
    fp = io.BytesIO()
    writer = Writer(fp)
    assert (writer.fp, writer.is_open) == (fp, False)
    with writer as entered:
        assert (entered, writer.is_open) == (writer, True)
        assert writer.append(b"ab") == 2
        assert writer.append(b"") == 0
        assert writer.append(b"cd") == 2
    assert not writer.is_open
    assert fp.getvalue() == b"abcd"
    assert str(writer) == "Writer"


def test_given_file_begins_where_it_stands():
    """Writer keeps what the caller has written to the file object before, even when it restarts."""
    fp = io.BytesIO()
    fp.write(b"head ")
    writer = Writer(fp)
    writer.open()
    writer.append(b"lost")
    writer.truncate()
    writer.append(b"lost too")
    writer.restart()
    writer.append(b"kept")
    writer.close()
    assert fp.getvalue() == b"head kept"


def test_given_file_written_again():
    """A reopened Writer starts at the same position and truncates its earlier content."""
    fp = io.BytesIO(b"head ")
    fp.seek(5)
    writer = Writer(fp)
    for content in (b"one and more", b"two", b"", b"three"):
        write(writer, content)
        assert fp.getvalue()[:5] == b"head "
    assert fp.getvalue() == b"head three"


def test_given_file_discarded():
    """discard() removes everything that Writer has written to the file object."""
    fp = io.BytesIO(b"head ")
    fp.seek(5)
    writer = Writer(fp)
    with contextlib.suppress(KeyError), writer:
        writer.append(b"lost")
        raise KeyError
    assert not writer.is_open
    writer.close()
    writer.discard()
    assert fp.getvalue() == b"head "
    write(writer)
    assert fp.getvalue() == b"head new"


def test_discard_without_open():
    """discard() doesn't change a file object that wasn't opened."""
    fp = io.BytesIO(OLD)
    Writer(fp).discard()
    assert fp.getvalue() == OLD


@pytest.mark.parametrize("fp", [Pipe(), Sink(), Slow(2), Slow(1)], ids=kind)
def test_any_file_object(fp):
    """Writer writes all bytes, even if the file object's write() is partial or returns None."""
    write(Writer(fp), b"abcde", b"f")
    assert (fp.getvalue() if isinstance(fp, Slow) else fp.content) == b"abcdef"


@pytest.mark.parametrize("fp", [Slow(2, 3), Busy()], ids=kind)
def test_file_object_that_takes_only_a_part(fp):
    """Writer raises if the file object refuses to accept the remaining bytes."""
    writer = Writer(fp)
    writer.open()
    with pytest.raises(OSError, match="only a part"):
        writer.append(b"abcde")
    writer.discard()


def test_pipe_is_discarded():
    """discard() of a pipe raises nothing, though the bytes can't be taken back."""
    fp = Pipe()
    writer = Writer(fp)
    writer.open()
    writer.append(NEW)
    writer.discard()
    assert fp.content == NEW
    assert not writer.is_open


@pytest.mark.parametrize("act", [Writer.truncate, lambda writer: writer.append(b"x")])
def test_nothing_to_write_to(act):
    """A Writer without a file object raises an error that says so."""
    writer = Writer()
    writer.open()
    assert not writer.is_open
    with pytest.raises((OSError, ValueError), match="Writer"):
        act(writer)
    writer.close()
    writer.discard()


@pytest.mark.parametrize("make", [FileWriter, BufferWriter, lambda path: Writer(io.BytesIO())])
def test_append_when_not_open(make):
    """append() to a closed or discarded writer raises instead of losing data."""
    writer = make("a") if make is FileWriter else make(None)
    for end in (writer.close, writer.discard):
        writer.open()
        end()
        with pytest.raises(ValueError, match="must be opened"):
            writer.append(NEW)


@pytest.mark.parametrize(
    ("fp", "able"), [(io.BytesIO(), True), (Pipe(), False), (Sink(), False)], ids=kind
)
def test_can_restart(fp, able):
    """A writer can restart if its file object can seek."""
    writer = Writer(fp)
    assert writer.can_restart() is able
    writer.open()
    assert writer.can_restart() is able
    if not able:
        with pytest.raises((OSError, AttributeError)):
            writer.restart()


def test_can_restart_closed_file():
    """A writer can't restart if the caller has closed the file object."""
    fp = io.BytesIO()
    fp.close()
    assert not Writer(fp).can_restart()


@pytest.mark.parametrize("writer", [Writer(), Writer(io.BytesIO()), BufferWriter()], ids=kind)
def test_nobody_knows_what_is_missing(writer):
    """A writer without a path never reports its target as missing."""
    assert not writer.is_missing()


def test_missing_file(folder):
    """A file counts as missing until it exists at the path; a temporary file doesn't count."""
    writer = FileWriter("folder/file")
    assert writer.is_missing()
    writer.open()
    writer.append(NEW)
    assert writer.is_missing()
    writer.close()
    assert not writer.is_missing()
    (folder / "link").symlink_to("folder/file")
    assert not FileWriter("link").is_missing()
    (folder / "folder/file").unlink()
    assert FileWriter("link").is_missing()
    assert FileWriter("a\0b").is_missing()


def appending(folder, buffering):
    """Make a file with content that is opened for appending."""
    path = folder / "log"
    path.write_bytes(OLD)
    return path, path.open("ab", buffering)


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("where", [0, 3, None])
def test_file_opened_for_appending(buffering, where, folder):
    """A writer keeps the old content of a file opened for appending, whatever its position.

    A shell's ``>>`` leaves the position at 0, and the system writes at the end of the file.
    """
    path, fp = appending(folder, buffering)
    with fp:
        if where is not None:
            fp.seek(where)
        writer = Writer(fp)
        writer.open()
        assert writer.can_restart()
        writer.append(b"lost")
        writer.restart()
        writer.append(b"lost, too")
        writer.discard()
        assert path.read_bytes() == OLD
        write(writer)
        assert path.read_bytes() == OLD + NEW
        write(writer, b"again")
        assert path.read_bytes() == OLD + b"again"


@pytest.mark.parametrize("buffering", [0, -1])
def test_others_append_to_the_file(buffering, folder):
    """If others have appended meanwhile, the writer doesn't truncate and can't restart."""
    path, fp = appending(folder, buffering)
    with fp, path.open("ab", 0) as others:
        writer = Writer(fp)
        writer.open()
        writer.append(NEW)
        fp.flush()
        others.write(b"theirs")
        assert not writer.can_restart()
        for again in (writer.truncate, writer.restart, writer.open):
            with pytest.raises(OSError, match="can't"):
                again()
        writer.discard()
    assert path.read_bytes() == OLD + NEW + b"theirs"


def test_something_behind(folder):
    """A writer never truncates data that follows its content in the file."""
    fp = io.BytesIO(b"head and more")
    fp.seek(5)
    writer = Writer(fp)
    writer.open()
    assert writer.can_restart()
    writer.restart()
    writer.append(b"AN")
    assert not writer.can_restart()
    with pytest.raises(OSError, match="can't start again"):
        writer.restart()
    writer.discard()
    assert fp.getvalue() == b"head ANd more"
    # Once all old content was overwritten, there is nothing left to preserve.
    fp.seek(5)
    writer = Writer(fp)
    writer.open()
    writer.append(b"and much more")
    writer.restart()
    assert fp.getvalue() == b"head "


def test_end_that_is_not_known(folder):
    """A writer can't restart on a file object without a known end, such as a compressor."""
    with gzip.open("a", "wb") as fp:
        writer = Writer(fp)
        writer.open()
        writer.append(OLD)
        assert not writer.can_restart()
        with pytest.raises(OSError, match="can't start again"):
            writer.restart()
        writer.close()
    assert gzip.decompress(Path("a").read_bytes()) == OLD


def test_append_of_a_plugin(folder):
    """Bytes that a subclass writes around our append() are also undone, where that is safe."""

    class Direct(Writer):
        def append(self, buffer):
            return self.fp.write(buffer)

    fp = io.BytesIO(b"head ")
    fp.seek(5)
    writer = Direct(fp)
    writer.open()
    writer.append(b"lost")
    writer.restart()
    write(writer)
    assert fp.getvalue() == b"head new"
    path, log = appending(folder, 0)
    with log:
        writer = Direct(log)
        writer.open()
        writer.append(NEW)
        assert not writer.can_restart()
        writer.discard()
    assert path.read_bytes() == OLD + NEW


def test_copy_of_a_writer():
    """A copied Writer has the same file object and isn't open."""
    writer = Writer(io.BytesIO())
    writer.open()
    writer.append(b"a")
    twin = copy.copy(writer)
    assert not twin.is_open
    assert writer.is_open
    write(twin, b"b")
    assert writer.fp.getvalue() == b"ab"


# Writers of plugins, which override some of the methods


class Opens(Writer):
    """Overrides open() only."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def open(self):
        """Open a file."""
        self.fp = Path(self.path).open("wb")  # noqa: SIM115 - closed by close()


class OpensWithoutInit(Opens):
    """Overrides open() only, and never calls our __init__."""

    def __init__(self, path):
        self.path = path


class OpensAndCloses(Opens):
    """Closes its file by itself and drops it."""

    def close(self):
        """Close the file."""
        self.fp.close()
        self.fp = None


class ClosesAndKeeps(Opens):
    """Closes its file by itself and keeps the object."""

    def close(self):
        """Close the file."""
        self.fp.close()


class Appends(FileWriter):
    """Overrides append() only."""

    def append(self, buffer):
        """Write in upper case."""
        return super().append(buffer.upper())


class OpensFile(FileWriter):
    """A FileWriter that opens the path by itself, as in 2017."""

    def open(self):
        """Open the path."""
        self.fp = Path(self.path).open("wb")  # noqa: SIM115 - closed by close()


class Wraps(FileWriter):
    """Puts a compressor around the file in open(), and finishes it in close()."""

    def open(self):
        """Begin to compress."""
        super().open()
        self.raw, self.fp = self.fp, gzip.GzipFile(fileobj=self.fp, mode="wb")

    def close(self):
        """Finish."""
        if self.fp is not None:
            self.fp.close()
            self.fp = self.raw
        super().close()

    def discard(self):
        """Drop the compressor."""
        if self.fp is not None:
            self.fp.close()
            self.fp = self.raw
        super().discard()


class ShortFileWriter(FileWriter):
    """Never calls our __init__."""

    def __init__(self, path):
        self.path = path


class Keeps(Writer):
    """Overrides open(), append() and close(), and uses no file object."""

    def open(self):
        """Begin."""
        self.parts = []

    def append(self, buffer):
        """Record the bytes."""
        self.parts.append(buffer)
        return len(buffer)

    def close(self):
        """Publish."""
        self.content = b"".join(self.parts)


class OnlyAppends(Writer):
    """Overrides append() only and uses no file object, so it never learns of a restart."""

    def __init__(self):
        super().__init__()
        self.content = b""

    def append(self, buffer):
        """Record the bytes."""
        self.content += buffer
        return len(buffer)


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (Opens, b"new"),
        (OpensWithoutInit, b"new"),
        (OpensAndCloses, b"new"),
        (ClosesAndKeeps, b"new"),
        (Appends, b"NEW"),
        (OpensFile, b"new"),
        (Wraps, b"new"),
        (ShortFileWriter, b"new"),
    ],
)
def test_writers_of_plugins(make, content, folder):
    """A plugin's writer works whichever methods it overrides, also again and after a restart."""
    writer = make("target")

    def read():
        found = Path("target").read_bytes()
        return gzip.decompress(found) if make is Wraps else found

    write(writer, b"n", b"ew")
    assert read() == content
    assert not writer.is_open
    write(writer)
    assert read() == content
    writer.open()
    writer.append(b"lost, all of it")
    assert writer.can_restart()
    writer.restart()
    writer.append(b"new")
    writer.close()
    assert read() == content
    assert list(tree(folder)) == ["target"]


@pytest.mark.parametrize("make", [ShortFileWriter, FileWriter, Appends, Wraps])
@pytest.mark.parametrize("act", ["close", "discard"])
def test_end_before_the_beginning(make, act, folder):
    """Closing or discarding a writer that was never opened does nothing."""
    Path("target").write_bytes(OLD)
    getattr(make("target"), act)()
    assert tree(folder) == {"target": OLD}


@pytest.mark.parametrize("make", [Appends, Wraps, ShortFileWriter])
def test_writers_of_plugins_discarded(make, folder):
    """A discarded FileWriter subclass of a plugin keeps the old file and leaves nothing."""
    Path("target").write_bytes(OLD)
    with contextlib.suppress(KeyError), make("target") as writer:
        writer.append(NEW)
        raise KeyError
    assert tree(folder) == {"target": OLD}


def test_writer_that_keeps_by_itself():
    """A writer without a file object is restarted by its own open()."""
    writer = Keeps()
    writer.open()
    writer.append(b"lost")
    assert writer.can_restart()
    writer.restart()
    writer.append(b"kept")
    writer.close()
    assert writer.content == b"kept"


def test_writer_that_cannot_be_started_again():
    """A writer that overrides only append() reports that it can't restart."""
    writer = OnlyAppends()
    write(writer)
    assert writer.content == NEW
    assert not writer.can_restart()
    with pytest.raises(OSError, match="OnlyAppends"):
        writer.restart()


# FileWriter


@pytest.mark.parametrize(
    "path", ["a", "new/folder/a", "./a", "new/../a", Path("new/a"), "é \n*", ".hidden", "a" * 255]
)
@pytest.mark.parametrize("absolute", [True, False])
def test_file(path, absolute, folder):
    """FileWriter creates a file at any path with missing folders, and leaves nothing else."""
    if str(path).startswith("new/.."):
        Path("new").mkdir()
    path = folder / path if absolute else path
    writer = FileWriter(path)
    assert str(writer) == writer.path == str(path)
    write(writer, b"n", b"", b"ew")
    assert Path(writer.path).read_bytes() == NEW
    assert list(tree(folder).values()) == [NEW]


def test_path_as_bytes(folder):
    """FileWriter accepts a path as bytes or refuses it, and never uses the text of its repr."""
    try:
        write(FileWriter(b"a"))
    except TypeError:
        return
    assert list(tree(folder)) == ["a"]


@pytest.mark.parametrize("path", [7, object(), ["a"]])
def test_path_that_is_none(path):
    """FileWriter refuses an object that isn't a path when it is made."""
    with pytest.raises(TypeError):
        FileWriter(path)


def test_nothing_before_open(folder):
    """Making a FileWriter creates no file and no folder."""
    FileWriter("new/a")
    FileWriter()
    assert list(folder.iterdir()) == []


def test_old_file_stays_until_closed(folder):
    """The old file stays complete until close(), and readers see only complete files."""
    Path("a").write_bytes(OLD)
    with Path("a").open("rb") as reader:
        writer = FileWriter("a")
        writer.open()
        for _ in range(3):
            writer.append(NEW)
            assert Path("a").read_bytes() == OLD
        writer.close()
        assert reader.read() == OLD
    assert tree(folder) == {"a": NEW * 3}


def test_temporary_file(folder):
    """The temporary file is a new file in the target's folder, with a short name of its own."""
    Path("sub").mkdir()
    writers = [FileWriter("sub/target") for _ in range(3)]
    for writer in writers:
        writer.open()
    names = os.listdir("sub")
    assert len(names) == 3
    assert all(len(name) < 32 and "target" not in name for name in names)
    for writer in writers:
        writer.discard()
    assert os.listdir("sub") == []


def test_temporary_file_is_exclusive(folder, monkeypatch):
    """FileWriter never opens an existing file or link at the name of its temporary file.

    It takes another name.
    """
    planted = folder / ".download-0000000000000000"
    Path("victim").write_bytes(OLD)
    for plant in (lambda: planted.symlink_to("victim"), lambda: planted.write_bytes(OLD)):
        plant()
        numbers = iter([0, 0, 1])
        monkeypatch.setattr(
            "random.Random.getrandbits", lambda _, bits, numbers=numbers: next(numbers)
        )
        with FileWriter("a") as writer:
            assert {path.name for path in folder.glob(".download-*")} == {
                planted.name,
                ".download-0000000000000001",
            }
            writer.append(NEW)
        assert planted.read_bytes() == OLD
        planted.unlink()
    assert tree(folder) == {"a": NEW, "victim": OLD}


def test_no_name_is_free(folder, monkeypatch):
    """If each temporary name that is tried is taken, open() raises."""
    monkeypatch.setattr("random.Random.getrandbits", lambda _, bits: 0)
    planted = folder / ".download-0000000000000000"
    planted.write_bytes(OLD)
    with pytest.raises(FileExistsError):
        FileWriter("a").open()
    assert tree(folder) == {planted.name: OLD}


@pytest.mark.parametrize("old", [None, OLD])
@pytest.mark.parametrize("end", ["discard", "exception", "open", "truncate", "restart"])
def test_discard(old, end, folder):
    """discard() keeps the old file at the path and leaves no other file."""
    if old:
        Path("a").write_bytes(old)
    writer = FileWriter("a")
    writer.open()
    writer.append(NEW)
    if end == "exception":
        writer.__exit__(KeyError, KeyError(), None)
    elif end == "discard":
        writer.discard()
    else:
        getattr(writer, end)()
        assert len(os.listdir(folder)) == 1 + bool(old)
        writer.discard()
    assert not writer.is_open
    writer.discard()
    writer.close()
    assert tree(folder) == ({"a": old} if old else {})


@pytest.mark.parametrize("again", ["open", "truncate", "restart"])
def test_start_again(again, folder):
    """After a restart the content written before isn't published, however long it was."""
    writer = FileWriter("a")
    writer.open()
    writer.append(b"long and lost")
    getattr(writer, again)()
    writer.append(NEW)
    writer.close()
    assert tree(folder) == {"a": NEW}


@pytest.mark.parametrize("fp", [None, io.BytesIO()])
def test_staging_file_is_closed(folder, fp):
    """The staging file is closed and published, whatever a subclass has put in place of ``fp``."""
    writer = FileWriter(folder / "target")
    writer.open()
    file = writer.fp
    writer.append(b"new")
    writer.fp = fp
    writer.close()
    assert file.closed
    assert tree(folder) == {"target": b"new"}


def test_close_twice(folder):
    """A second close() does nothing, even if the file was removed meanwhile."""
    writer = FileWriter("a")
    write(writer)
    Path("a").unlink()
    writer.close()
    assert tree(folder) == {}


def test_empty_file(folder):
    """An empty new file replaces an old file with content."""
    Path("a").write_bytes(OLD)
    write(FileWriter("a"), b"")
    assert tree(folder) == {"a": b""}


def test_working_directory_may_change(folder, monkeypatch):
    """A relative path is resolved when the FileWriter is opened."""
    Path("elsewhere").mkdir()
    writer = FileWriter("a")
    writer.open()
    writer.append(NEW)
    monkeypatch.chdir("elsewhere")
    writer.close()
    assert tree(folder) == {"a": NEW}


def test_no_path(folder):
    """Without a path FileWriter makes a new file in the working directory and sets `path`."""
    writers = [FileWriter() for _ in range(3)]
    for writer in writers:
        write(writer)
        assert Path(writer.path).read_bytes() == NEW
        assert Path(writer.path).parent == folder
    assert len(tree(folder)) == 3


# Links


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_link(exists, absolute, folder):
    """If the path is a symbolic link, even a dangling one, the file it leads to is replaced."""
    Path("sub").mkdir()
    if exists:
        Path("sub/file").write_bytes(OLD)
    where = folder if absolute else Path()
    Path("middle").symlink_to(where / "sub" / "file")
    Path("a").symlink_to(where / "middle")
    write(FileWriter("a"))
    assert Path("a").is_symlink()
    assert Path("middle").is_symlink()
    assert not Path("sub/file").is_symlink()
    assert Path("sub/file").read_bytes() == NEW
    assert sorted(os.listdir(folder)) == ["a", "middle", "sub"]
    assert os.listdir("sub") == ["file"]


def test_link_discarded(folder):
    """discard() keeps a symbolic link at the path and the file that it leads to."""
    Path("file").write_bytes(OLD)
    Path("a").symlink_to("file")
    writer = FileWriter("a")
    writer.open()
    writer.append(NEW)
    writer.discard()
    assert Path("a").readlink() == Path("file")
    assert tree(folder) == {"a": OLD, "file": OLD}


def test_link_into_a_missing_folder(folder):
    """FileWriter creates the missing folders that a dangling link leads to."""
    Path("a").symlink_to("new/folder/file")
    write(FileWriter("a"))
    assert Path("a").is_symlink()
    assert Path("new/folder/file").read_bytes() == NEW


def test_folder_behind_a_link(folder):
    """The folder of the path may be a symbolic link."""
    Path("real").mkdir()
    Path("link").symlink_to("real")
    write(FileWriter("link/sub/a"))
    assert tree(folder) == {"real/sub/a": NEW}


def test_hard_link(folder):
    """With a hard link only the path gets the new file. The other name keeps the old one."""
    Path("other").write_bytes(OLD)
    Path("a").hardlink_to("other")
    write(FileWriter("a"))
    assert tree(folder) == {"a": NEW, "other": OLD}


@pytest.mark.parametrize("path", ["one", "self", "one/file", "self/file"])
def test_links_in_a_circle(path, folder):
    """Symbolic links in a circle are refused and stay."""
    Path("one").symlink_to("two")
    Path("two").symlink_to("one")
    Path("self").symlink_to("self")
    with pytest.raises(OSError, match=f"Errno {errno.ELOOP}"):
        FileWriter(path).open()
    assert sorted(os.listdir(folder)) == ["one", "self", "two"]


# Permissions


@pytest.fixture
def umask():
    """Set the umask for a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def bits(path):
    """Return the permission bits of a file."""
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077, 0o002])
def test_new_file_follows_the_umask(mask, umask, folder):
    """A new file, temporary or published, has the permission bits that the umask allows."""
    umask(mask)
    Path("like").write_bytes(b"")
    writer = FileWriter("a")
    writer.open()
    assert bits(temporary(folder)) == bits("like")
    writer.close()
    assert bits("a") == bits("like") == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755, 0o444, 0o400])
@pytest.mark.parametrize("link", [True, False])
def test_existing_file_keeps_its_bits(mode, link, umask, folder):
    """A replaced file keeps its permissions. The temporary file never has more of them."""
    umask(0o077)
    Path("file").write_bytes(OLD)
    Path("file").chmod(mode)
    if link:
        Path("a").symlink_to("file")
    writer = FileWriter("a" if link else "file")
    writer.open()
    assert bits(temporary(folder)) == mode
    writer.append(NEW)
    writer.close()
    assert bits("file") == mode
    assert Path("file").read_bytes() == NEW


def test_bits_that_give_power_are_dropped():
    """A replaced set-user-ID file loses that bit."""
    Path("a").write_bytes(OLD)
    Path("a").chmod(0o6755)
    write(FileWriter("a"))
    assert bits("a") == 0o755


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(("mode", "after"), [(0o644, 0o600), (0o640, 0o600), (0o600, 0o600)])
def test_bits_that_cannot_be_set(mode, after, resume, umask, folder, monkeypatch):
    """If permissions can't be set, the file is published with fewer bits and never with more."""

    def refuse(descriptor, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    umask(0o077)
    Path("a").write_bytes(OLD)
    Path("a").chmod(mode)
    monkeypatch.setattr("os.fchmod", refuse)
    write(FileWriter("a", resume=resume))
    assert tree(folder) == {"a": NEW}
    assert bits("a") == after


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_never_more_bits(mode, resume, umask, folder, monkeypatch):
    """At no moment is the new file readable by more users than the old one.

    Bits that already agree aren't set again.
    """
    umask(0o000)
    Path("a").write_bytes(OLD)
    Path("a").chmod(mode)
    real = os.open
    made = []

    def observe(path, flags, *arguments):
        descriptor = real(path, flags, *arguments)
        if flags & os.O_CREAT:
            made.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr("os.open", observe)
    monkeypatch.setattr("os.fchmod", None)
    write(FileWriter("a", resume=resume))
    assert made == [mode]
    assert bits("a") == mode


# Targets that are refused


def make_folder(path):
    """Make a folder with a file in it."""
    path.mkdir()
    (path / "file").write_bytes(OLD)


def make_socket(path):
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(path))


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("make", [make_folder, os.mkfifo, make_socket])
def test_no_regular_file(make, link, folder):
    """FileWriter refuses a folder, pipe or socket at the path and leaves it there."""
    make(folder / "thing")
    Path("link").symlink_to("thing")
    before = os.lstat("thing")
    with pytest.raises(OSError, match="at the path"):
        FileWriter("link" if link else "thing").open()
    assert os.lstat("thing").st_ino == before.st_ino
    assert sorted(os.listdir(folder)) == ["link", "thing"]


def test_device():
    """FileWriter refuses a device at the path."""
    before = os.lstat(os.devnull)
    with pytest.raises(OSError, match="other than a file"):
        FileWriter(os.devnull).open()
    assert os.lstat(os.devnull) == before


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("", errno.ENOENT),
        ("new/", errno.EISDIR),
        ("/", errno.EISDIR),
        (".", errno.EISDIR),
        ("..", errno.EISDIR),
        ("new/.", errno.EISDIR),
        ("new/..", errno.EISDIR),
        ("new/a\0b", errno.EINVAL),
        ("new/\ud800", errno.EILSEQ),
        ("n" * 256, errno.ENAMETOOLONG),
        ("file/a", errno.ENOTDIR),
        ("file/new/a", errno.ENOTDIR),
    ],
)
def test_path_that_cannot_be(path, number, folder):
    """An impossible path is an OSError that says why, and nothing is created."""
    Path("file").write_bytes(OLD)
    with pytest.raises(OSError, match=f"Errno {number}. [A-Z]"):
        FileWriter(path).open()
    assert tree(folder) == {"file": OLD}
    assert os.listdir(folder) == ["file"]


# Failures of the system


def test_folder_appears_meanwhile(folder):
    """If a folder appears at the path, close() fails, keeps it and leaves no other file."""
    writer = FileWriter("a")
    writer.open()
    writer.append(NEW)
    Path("a").mkdir()
    with pytest.raises(IsADirectoryError):
        writer.close()
    assert not writer.is_open
    assert os.listdir(folder) == ["a"]


def test_folder_vanishes_meanwhile(folder):
    """If the folder vanishes, close() fails, and the writer can be used again."""
    Path("sub").mkdir()
    writer = FileWriter("sub/a")
    writer.open()
    temporary("sub").unlink()
    Path("sub").rmdir()
    writer.append(NEW)
    with pytest.raises(FileNotFoundError):
        writer.close()
    assert list(folder.iterdir()) == []
    write(writer)
    assert tree(folder) == {"sub/a": NEW}


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=repr)
def test_rename_fails(error, folder, monkeypatch):
    """If the rename fails, the old file stays and the temporary file is removed."""
    Path("a").write_bytes(OLD)
    writer = FileWriter("a")
    writer.open()
    writer.append(NEW)

    def fail(source, target):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(type(error)):
            writer.close()
    assert not writer.is_open
    assert tree(folder) == {"a": OLD}


@pytest.mark.parametrize("method", ["write", "close"])
def test_disk_is_full(method, folder, monkeypatch):
    """If the disk is full at a write or at the close, the old file stays."""
    real = DescriptorFile

    class Full(real):
        pass

    def fail(self, *args):
        if not self.closed:
            real.close(self)
            raise FULL

    setattr(Full, method, fail)
    monkeypatch.setattr(staging, "DescriptorFile", Full)
    Path("a").write_bytes(OLD)
    with pytest.raises(OSError, match="No space"), FileWriter("a") as writer:
        writer.append(NEW)
    assert not writer.is_open
    assert tree(folder) == {"a": OLD}


def test_file_of_a_plugin_fails_to_close():
    """A subclass that opens the path by itself gets the error of its own file's close()."""

    class Full(io.BytesIO):
        def close(self):
            super().close()
            raise FULL

    writer = OpensFile("a")
    writer.fp = Full()
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert not writer.is_open


def test_temporary_file_cannot_be_removed(folder, monkeypatch):
    """discard() never raises, so that the original error is reported."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    writer = FileWriter("a")
    writer.open()
    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", refuse)
        writer.discard()
    assert not writer.is_open


def test_file_objects_are_closed(folder, no_leaks):
    """A FileWriter leaves no open descriptor, however it ends."""
    Path("a").write_bytes(OLD)
    writer = FileWriter("a")
    for end in (writer.close, writer.discard, writer.open, writer.truncate, writer.restart):
        writer.open()
        writer.append(NEW)
        end()
        writer.discard()


# Copies, texts


def test_copy_of_a_file_writer(folder):
    """A copied FileWriter has the same path and never the other's temporary file."""
    writer = FileWriter("a")
    writer.open()
    writer.append(b"first")
    twin = copy.copy(writer)
    assert (twin.path, twin.is_open) == ("a", False)
    twin.discard()
    twin.close()
    write(twin, b"second")
    assert tree(folder)["a"] == b"second"
    writer.close()
    assert tree(folder) == {"a": b"first"}


def test_travelling_file_writer(folder, monkeypatch, no_leaks):
    """A pickled or deep-copied FileWriter isn't open and owns no file of the original.

    A pickle has an absolute path, because another process may have another working directory.
    """
    writer = FileWriter("sub/a", resume=True, durable=True)
    writer.open()
    writer.append(b"first")
    twins = [pickle.loads(pickle.dumps(writer)), copy.deepcopy(writer)]
    monkeypatch.chdir("sub")
    assert twins[0].path == str(folder / "sub/a")
    assert twins[1].path == "sub/a"
    for twin in twins:
        assert (twin.is_open, twin.resume, twin.durable) == (False, True, True)
        twin.discard()
    write(twins[0], b"second")
    assert tree(folder)["sub/a"] == b"second"
    writer.close()
    assert tree(folder) == {"sub/a": b"first"}


class Aside(FileWriter):
    """A FileWriter with something that a copy must not have."""

    held = None

    def __copy__(self):
        """Copy without it."""
        clone = super().__copy__()
        clone.held = None
        return clone


def test_travelling_subclass(folder, no_leaks):
    """A pickle has what a subclass makes of a copy."""
    writer = Aside("a")
    writer.held = threading.Lock()
    twin = pickle.loads(pickle.dumps(writer))
    assert (twin.path, twin.held) == (str(folder / "a"), None)


def test_travelling_buffer_writer():
    """A pickled or deep-copied BufferWriter is empty and has the same limit."""
    writer = BufferWriter(5)
    write(writer)
    for twin in (pickle.loads(pickle.dumps(writer)), copy.deepcopy(writer)):
        assert (twin.limit, twin.getvalue(), twin.is_open) == (5, b"", False)
    assert writer.getvalue() == NEW


def test_travelling_writer():
    """A Writer with a file object can't be pickled; copies share only the file object."""
    fp = io.BytesIO()
    writer = Writer(fp)
    with pytest.raises(TypeError, match="FileWriter"):
        pickle.dumps(writer)
    assert pickle.loads(pickle.dumps(Writer())).fp is None
    for twin in (copy.copy(writer), copy.deepcopy(writer)):
        assert twin.fp is fp
        twin.open()
        assert not writer.is_open
        twin.close()


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy])
def test_copy_of_a_writer_of_a_plugin(act):
    """Copying a plugin's writer copies its mutable attributes."""
    writer = Keeps()
    writer.open()
    twin = act(writer)
    twin.append(b"x")
    assert writer.parts == []
    assert isinstance(twin, Keeps)


def test_texts():
    """The str of a FileWriter is its path."""
    assert (str(FileWriter("a/b")), repr(FileWriter("a/b"))) == ("a/b", "FileWriter('a/b')")
    # A URL that was given as a path.
    writer = FileWriter("http://me:s3cret@h/a?b=s3cret")
    assert repr(writer) == "FileWriter('http://h/a?b=***')"
    assert repr(FileWriter("a?b=c")) == "FileWriter('a?b=c')"
    assert (repr(BufferWriter()), repr(BufferWriter(7))) == ("BufferWriter()", "BufferWriter(7)")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=5),
            st.sampled_from(["open", "close", "discard", "truncate", "restart"]),
        ),
        max_size=12,
    )
)
def test_any_order(tmp_path_factory, steps):
    """After any sequence of calls the path has the content that was published last."""
    folder = tmp_path_factory.mktemp("any")
    writer, buffer = FileWriter(folder / "a"), BufferWriter()
    published = current = None
    for step in steps:
        if isinstance(step, bytes):
            if current is not None:
                writer.append(step)
                buffer.append(step)
                current += step
        elif step != "truncate" or current is not None:
            for each in (writer, buffer):
                getattr(each, step)()
            if step == "close":
                published = published if current is None else current
            current = b"" if step in ("open", "truncate", "restart") else None
        assert writer.is_open is buffer.is_open is (current is not None)
        if current is not None:
            assert buffer.getvalue() == current
        found = tree(folder)
        assert found.pop("a", None) == published
        assert len(found) == (current is not None)
    writer.discard()


# What an earlier run left


def test_resume(folder):
    """A partial file and note left by a failed run are found and continued by the next one."""
    writer = FileWriter("a", resume=True)
    for _ in range(2):
        writer.open()
        if writer.recall() is None:
            writer.remember("v1")
        list(writer.replay(3))
        writer.append(b"ab")
        writer.discard()
    assert "a" not in tree(folder)
    writer.open()
    assert writer.recall() == "v1"
    assert list(writer.replay(3)) == [b"aba", b"b"]
    writer.append(NEW)
    writer.close()
    assert tree(folder) == {"a": b"abab" + NEW}


@pytest.mark.parametrize("again", ["truncate", "restart"])
@pytest.mark.parametrize("note", ["v1", None])
def test_resume_starts_again(again, note, folder):
    """After a restart there is no note, and the next run finds nothing to resume."""
    writer = FileWriter("a", resume=True)
    writer.open()
    writer.remember(note)
    writer.append(b"lost")
    getattr(writer, again)()
    writer.append(b"lost, too")
    writer.discard()
    assert tree(folder) == {}
    writer.open()
    assert writer.recall() is None
    writer.discard()


def test_resume_without_a_note(folder):
    """Without a note no partial file is kept."""
    with contextlib.suppress(KeyError), FileWriter("a", resume=True) as writer:
        writer.append(NEW)
        raise KeyError
    assert tree(folder) == {}


def test_resume_keeps_bits_and_old_file(folder):
    """A resuming FileWriter keeps the old file and its permissions like any other."""
    Path("a").write_bytes(OLD)
    Path("a").chmod(0o640)
    writer = FileWriter("a", resume=True)
    writer.open()
    assert tree(folder)["a"] == OLD
    writer.append(NEW)
    writer.close()
    assert tree(folder) == {"a": NEW}
    assert bits("a") == 0o640


@pytest.mark.parametrize("half", [True, False])
def test_resume_that_was_not_read(half, folder):
    """A partial file that wasn't read to its end isn't continued.

    This also applies to a subclass that writes to the file object by itself.
    """
    for other in (b"other", b"and other"):
        writer = FileWriter("a", resume=True)
        writer.open()
        writer.remember("v1")
        writer.append(b"abcdef")
        writer.discard()
        writer.open()
        assert writer.recall() == "v1"
        if half:
            assert next(writer.replay(3)) == b"abc"
        writer.fp.write(other)
        assert writer.recall() is None
        assert len(tree(folder)) == 1
        writer.discard()
        assert tree(folder) == {}


def test_note_that_cannot_be_written(folder, monkeypatch):
    """If the note can't be written, the file is still written. A failed run leaves nothing."""

    def refuse(self, note):
        raise FULL

    monkeypatch.setattr(staging.Partial, "remember", refuse)
    writer = FileWriter("a", resume=True)
    for end in (writer.discard, writer.close):
        writer.open()
        writer.remember("v1")
        writer.append(NEW)
        end()
        assert tree(folder) == ({"a": NEW} if end == writer.close else {})


def test_durable(folder, monkeypatch):
    """With ``durable`` close() syncs the file before the rename, and its folder after it.

    It also syncs the entries of new folders. Without ``durable``, and for a discarded file, nothing
    is synced.
    """
    calls = []
    rename = os.replace
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    monkeypatch.setattr("os.replace", lambda *names: calls.append("rename") or rename(*names))
    write(FileWriter("a"))
    assert calls == ["rename"]
    calls.clear()
    writer = FileWriter("a", durable=True)
    writer.open()
    writer.discard()
    assert calls == []
    for resume in (True, False):
        write(FileWriter("a", resume, durable=True))
        assert Path(calls[0]).name.startswith(".download-")
        assert calls[1:] == ["rename", str(folder)]
        calls.clear()
    write(FileWriter("b/c/d", durable=True))
    assert calls[1:] == ["rename", str(folder / "b/c"), str(folder / "b"), str(folder)]


@pytest.mark.parametrize("at", [1, 2])
def test_durable_fails(at, folder, monkeypatch, no_leaks):
    """If syncing the file or its folder fails, close() raises the error."""
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) == at:
            raise OSError(errno.EIO, "Input/output error")

    Path("a").write_bytes(OLD)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input"):
        write(FileWriter("a", durable=True))
    assert tree(folder) == {"a": OLD if at == 1 else NEW}


def test_two_that_resume(folder):
    """A second resuming writer of the same path works without resuming, and both succeed."""
    writers = [FileWriter("a", resume=True) for _ in range(2)]
    for writer in writers:
        writer.open()
        writer.remember("v1")
    for writer in reversed(writers):
        writer.append(NEW)
        writer.close()
        assert tree(folder)["a"] == NEW
    assert tree(folder) == {"a": NEW}


def test_partial_file_that_became_shorter(folder):
    """A partial file that somebody truncated is an error instead of a gap."""
    writer = FileWriter("a", resume=True)
    writer.open()
    writer.remember("v1")
    writer.append(NEW)
    writer.discard()
    writer.open()
    (partial,) = folder.glob("*.partial")
    os.truncate(partial, 1)
    with pytest.raises(OSError, match="became shorter"):
        list(writer.replay(10))
    writer.remember(None)
    writer.discard()
    assert tree(folder) == {}


def test_resume_needs_a_path():
    """A FileWriter without a path can't resume, as its name is new each time."""
    with pytest.raises(ValueError, match="resume"):
        FileWriter(resume=True)


@pytest.mark.parametrize("make", [FileWriter, Writer, BufferWriter])
def test_no_resume_by_default(make):
    """By default a FileWriter keeps no partial file and no note."""
    writer = make("a") if make is FileWriter else make(None)
    for act in (lambda: None, writer.open):
        act()
        writer.remember("v1")
        assert writer.recall() is None
        assert list(writer.replay(10)) == []
    writer.discard()


# BufferWriter


@pytest.mark.parametrize(
    ("buffers", "text"),
    [
        ([], ""),
        ([b""], ""),
        ([b"a", b"b"], "ab"),
        (["é".encode()[:1], "é".encode()[1:]], "é"),
        ([b"a\xffb"], "a\ufffdb"),
        ([b"\xef\xbb\xbfa"], "\ufeffa"),
        ([b"a\r\nb\0"], "a\r\nb\0"),
    ],
)
def test_buffer(buffers, text):
    """BufferWriter gives its bytes unchanged, and its text as UTF-8 with replacements."""
    writer = BufferWriter()
    assert writer.content() == writer.read() == ""
    with writer:
        for buffer in buffers:
            writer.append(buffer)
        assert writer.content() == text
    for _ in range(2):
        assert writer.content() == writer.read() == text
        assert writer.getvalue() == b"".join(buffers)


@pytest.mark.parametrize("end", ["discard", "open", "truncate", "restart"])
def test_buffer_starts_again(end):
    """A restarted BufferWriter is empty."""
    writer = BufferWriter()
    writer.open()
    writer.append(NEW)
    getattr(writer, end)()
    assert writer.getvalue() == b""
    writer.close()
    writer.close()
    assert writer.content() == ""


def test_buffer_again():
    """A second content replaces the first in a BufferWriter."""
    writer = BufferWriter()
    for content in (b"long content", b"short"):
        write(writer, content)
        assert writer.getvalue() == content


@pytest.mark.parametrize("limit", [0, 5])
def test_buffer_limit(limit):
    """BufferWriter accepts as many bytes as its limit and raises on one more."""
    writer = BufferWriter(limit)
    writer.open()
    writer.append(b"x" * limit)
    writer.append(b"")
    with pytest.raises(OSError, match=f"more than {limit} bytes") as caught:
        writer.append(b"x")
    assert caught.value.errno == errno.EFBIG
    writer.close()
    assert writer.getvalue() == b"x" * limit
    with pytest.raises(ValueError, match="must be opened"):
        writer.append(b"x")


def test_copy_of_a_buffer_writer():
    """A copied BufferWriter has the limit and no content."""
    writer = BufferWriter(7)
    write(writer)
    writer.open()
    twin = copy.copy(writer)
    assert (twin.limit, twin.is_open, twin.content()) == (7, False, "")
    write(twin, b"b")
    writer.append(b"a")
    writer.close()
    assert (writer.content(), twin.content()) == ("a", "b")


@pytest.mark.parametrize("resume", [False, True])
def test_interrupted(folder, resume):
    """A Ctrl-C at any place of a download leaves the old file or the new one, and no other."""
    (folder / "source").write_bytes(NEW)
    target = folder / "target"

    def scenario(armed):
        target.write_bytes(OLD)
        download = FileDownload(f"file://{folder}/source", FileWriter(target, resume=resume))
        with armed:
            download()
        assert set(tree(folder)) == {"source", "target"}
        assert target.read_bytes() in (OLD, NEW)

    # An interrupt that comes while garbage is collected gets lost.
    gc.disable()
    try:
        assert at_each_place(scenario) > 50
    finally:
        gc.enable()


def test_interrupted_open(folder):
    """A Ctrl-C at any place of open() leaves no staging file and no file descriptor."""

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()

    def scenario(armed):
        writer = FileWriter(folder / "target")
        with armed:
            writer.open()
        writer.discard()
        assert tree(folder) == {}
        assert descriptors() == before

    assert at_each_place(scenario) > 10
