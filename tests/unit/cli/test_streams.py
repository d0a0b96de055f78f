"""Tests of standard streams that are closed, full or no longer read."""

import io
import os
import sys

import pytest

from pulpcore.plugin.download.futures.cli.streams import Stream, content, standard_streams


def test_writes():
    """The wrapper of a stream passes text through and exposes the stream's other attributes."""
    inner = io.StringIO()
    stream = Stream(inner)
    assert stream.write("text") == 4
    stream.flush()
    assert (inner.getvalue(), stream.problem, stream.missing) == ("text", None, False)
    assert stream.isatty() is False


def test_closed():
    """A closed stream accepts text, drops it and remembers that it did."""
    stream = Stream(None)
    assert (stream.missing, stream.problem) == (True, None)
    assert stream.isatty() is False
    stream.flush()
    assert stream.problem is None
    assert stream.write("text") == 4
    assert stream.problem == "it is closed"
    stream.end()


def test_full():
    """On a full device the text is dropped at once, and closing the stream later doesn't fail."""
    with open("/dev/full", "w") as inner:
        stream = Stream(inner)
        stream.write("text")
        assert stream.problem is None
        stream.flush()
        assert stream.problem == "No space left on device"
        stream.write("more")
        stream.end()


def test_error_without_text(monkeypatch):
    """An error without a message of the operating system is shown by its class name."""

    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    stream = Stream(Broken())
    stream.write("text")
    assert stream.problem == "BrokenPipeError"


def test_replaced_and_restored(monkeypatch):
    """Both standard streams are wrapped within the `with` block and restored after it."""
    monkeypatch.setattr(sys, "stdout", None)
    before = sys.stdout, sys.stderr
    with standard_streams() as (out, error):
        assert (sys.stdout, sys.stderr) == (out, error)
        assert (out.missing, error.missing) == (True, False)
        assert content() is None
    assert (sys.stdout, sys.stderr) == before


def test_content():
    """File content is written to the byte buffer of stdout, whether stdout is wrapped or not."""
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "w") as inner:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", inner)
            assert content() is inner.buffer
            with standard_streams():
                assert content() is inner.buffer
                content().write(b"\xff")
        inner.close()
        assert reader.read() == b"\xff"
