"""Tests of the file object for a descriptor."""

import gzip
import os

import pytest

from pulpcore.plugin.download.futures.storage.descriptor import DescriptorFile


@pytest.fixture
def path(tmp_path):
    """Return the path of the file."""
    return tmp_path / "file"


@pytest.fixture
def file(path):
    """Make a file object for a new file."""
    with DescriptorFile(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)) as file:
        yield file


def test_write(path, file):
    """write() stores the bytes and returns their number."""
    assert (file.writable(), file.readable(), file.seekable()) == (True, False, True)
    assert [file.write(b"ab"), file.write(memoryview(b"cde"))] == [2, 3]
    assert (path.read_bytes(), file.tell()) == (b"abcde", 5)


def test_start_again(path, file):
    """truncate() cuts the file at a given size or at the current position."""
    file.write(b"abcde")
    assert (file.truncate(4), path.read_bytes()) == (4, b"abcd")
    assert (file.seek(-2, os.SEEK_END), file.truncate(), path.read_bytes()) == (2, 2, b"ab")


def test_wrapped(path, file):
    """Other objects, such as a plugin's compressor, can write through the file object."""
    with gzip.GzipFile(fileobj=file, mode="wb") as compressor:
        compressor.write(b"abc")
    assert gzip.decompress(path.read_bytes()) == b"abc"


def test_closed(file):
    """close() closes the descriptor once, so a new file with that number isn't touched."""
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
    """A file object without references closes its descriptor."""
    file = DescriptorFile(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    file.write(b"x")
    del file


def test_interrupted_before_it_owns_a_descriptor():
    """An object whose __init__ was interrupted has no descriptor, and can be closed."""
    file = DescriptorFile.__new__(DescriptorFile)
    file.sync = True
    file.close()
    assert file.closed
