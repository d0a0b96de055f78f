"""Tests of what a terminal shows: the screen is replayed from what the program writes."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading

import pyte
import pytest
from servers.files import Hold, Status

LONG = "/" + "long-name-" * 12


class Screen:
    """A program on a terminal of a given width, and what the terminal shows."""

    def __init__(self, columns, *arguments):
        self._screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self._screen)
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = os.environ | {"TERM": "xterm"}
        for name in "COLUMNS", "LINES":
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pulp_futures", *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
        )
        os.close(other)

    @property
    def lines(self):
        """The lines that aren't empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def until(self, shown):
        """Read until the screen is as `shown` wants it."""
        while not shown(self.lines):
            self._stream.feed(os.read(self._main, 4096))
        return self.lines

    def end(self):
        """Read to the end, and return the lines."""
        with contextlib.suppress(OSError):  # end of file on a terminal
            self.until(lambda _: False)
        assert self.process.wait(timeout=100) is not None
        return self.lines

    def close(self):
        """End the program."""
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@pytest.fixture
def screen(tmp_path, monkeypatch):
    """Return `screen(columns, *arguments)`, which starts the program on a terminal."""
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            return stack.enter_context(contextlib.closing(Screen(*arguments)))

        yield start


@pytest.mark.parametrize(
    ("columns", "has", "has_not"),
    [(80, ["Downloading ━"], []), (40, ["━"], ["Downloading"])],
)
def test_screen(screen, file_server, columns, has, has_not):
    """The bar takes one line, an error at most two, and the last line is the summary."""
    held = threading.Event()
    files = {"/a": b"A" * 2_000_000, "/b": b"B" * 1000}
    faults = {"/b": Hold(held), LONG: Status(404)}
    server = file_server(files, faults=lambda _, request: faults.get(request.path))
    shown = screen(columns, "get", *map(server.url, ["/a", "/b", LONG]))
    try:
        lines = shown.until(lambda lines: lines and lines[-1].endswith("2/3 files"))
        assert len(lines) <= 3
        assert lines[0].startswith("failed: …")
        assert "404 Not Found" in " ".join(lines)
        assert all(text in lines[-1] for text in has)
        assert not any(text in lines[-1] for text in has_not)
        assert "2.0" in lines[-1]
    finally:
        held.set()
    lines = shown.end()
    assert shown.process.returncode == 1
    assert "━" not in "".join(lines)
    text = " ".join(lines[2:])
    assert text.startswith("3 files: 2 downloaded")
    assert text.endswith("1 failed")


@pytest.mark.parametrize("columns", [40, 80])
def test_wait(screen, file_server, columns):
    """While all files wait, the line says for what, and how long."""
    server = file_server({"/a": b"A"}, faults={0: Status(503, {"Retry-After": "3"})})
    shown = screen(columns, "get", server.url("/a"))
    (line,) = shown.until(lambda lines: "waiting" in "".join(lines))
    assert line.startswith("waiting ")
    assert " s: the server asked for" in line
    (line,) = shown.end()[:1]
    assert line.startswith("a: 1 byte, sha256 ")


def test_document(screen, file_server):
    """A document's error shows its reason, not its URL, in two lines of a narrow terminal."""
    server = file_server({})
    lines = screen(40, "get", "--metalink", server.url("/m")).end()
    assert lines[0].startswith("failed: the Metalink document: the")
    assert "404" in " ".join(lines[:2])
    assert lines[2].startswith("1 file: 0 downloaded")


def test_content_on_the_same_terminal(screen, file_server):
    """The program adds nothing to content that it writes to the terminal."""
    server = file_server({"/a": b"content"})
    assert screen(80, "get", server.url("/a"), "-o", "-").end() == ["content"]
