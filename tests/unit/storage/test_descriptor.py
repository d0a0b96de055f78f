"""A file object for a descriptor."""

import gzip
import os

import pytest

from pulpcore.plugin.download.futures.storage.descriptor import DescriptorFile


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / "file"


@pytest.fixture
def file(path):
    """A file object for a new file."""
    with DescriptorFile(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)) as file:
        yield file


def test_write(path, file):
    """What is written is there, and how much it was is told."""
    assert (file.writable(), file.readable(), file.seekable()) == (True, False, True)
    assert [file.write(b"ab"), file.write(memoryview(b"cde"))] == [2, 3]
    assert (path.read_bytes(), file.tell()) == (b"abcde", 5)


def test_start_again(path, file):
    """It can be cut, at a size and where it stands."""
    file.write(b"abcde")
    assert (file.truncate(4), path.read_bytes()) == (4, b"abcd")
    assert (file.seek(-2, os.SEEK_END), file.truncate(), path.read_bytes()) == (2, 2, b"ab")


def test_wrapped(path, file):
    """Others can write through it, such as a compressor of a plugin's."""
    with gzip.GzipFile(fileobj=file, mode="wb") as compressor:
        compressor.write(b"abc")
    assert gzip.decompress(path.read_bytes()) == b"abc"


def test_closed(file):
    """Once it is closed the descriptor is, and whose number it gets isn't touched."""
    number = file.fileno()
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    calls = [file.fileno, lambda: file.write(b"x"), lambda: file.seek(0), lambda: file.truncate(0)]
    for call in calls:
        with pytest.raises(ValueError, match="closed file"):
            call()


def test_forgotten(path, no_leaks):
    """One that nobody holds any more is closed."""
    file = DescriptorFile(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    file.write(b"x")
    del file
