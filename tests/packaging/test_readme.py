import hashlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from pulpcore.plugin.download.futures import ValidationError

README = Path(__file__).resolve().parents[2] / "README.rst"
CONTENT = {"tiger.iso": b"tiger" * 1000, "lion.iso": b"lion" * 1000}
CHECKED = "A file that is what you expect"


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Suppress the log of requests."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve the files that the README names, except for unicorn.iso, which is missing."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in {**CONTENT, "index.html": b"<html>"}.items():
        (folder / name).write_bytes(content)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def example(title: str) -> str:
    """Return the Python code of a section of the README."""
    section = README.read_text().partition(f"\n{title}\n---")[2]
    found = re.search(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", section)
    assert found, title
    return dedent(found[1])


@pytest.fixture
def run(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs the example of a section in an empty folder, with the server."""
    monkeypatch.chdir(tmp_path)

    def run(title: str, **names: object) -> None:
        exec(example(title).replace("https://example.org", server), names)

    return run


def test_one_file(
    run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example "One file" is complete: the file appears at the path that it prints."""
    run("One file")
    assert capsys.readouterr().out == "pages/example.html 6 bytes\n"
    assert (tmp_path / "pages" / "example.html").read_bytes() == b"<html>"


def test_checked(run: Callable[..., None], tmp_path: Path) -> None:
    """The example with a digest downloads a file that matches it."""
    run(CHECKED, TIGER_SHA256=hashlib.sha256(CONTENT["tiger.iso"]).hexdigest())
    assert (tmp_path / "isos" / "tiger.iso").read_bytes() == CONTENT["tiger.iso"]


def test_one_that_differs(run: Callable[..., None], tmp_path: Path) -> None:
    """If the digest differs, the example raises and leaves the old file unchanged."""
    target = tmp_path / "isos" / "tiger.iso"
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(ValidationError):
        run(CHECKED, TIGER_SHA256=hashlib.sha256(b"other").hexdigest())
    assert target.read_bytes() == b"old"


def test_many_files(
    run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example "Many files" downloads the existing files and prints which one failed."""
    run("Many files")
    lines = capsys.readouterr().out.splitlines()
    *done, failed = sorted(lines)
    assert done == ["done: isos/lion.iso", "done: isos/tiger.iso"]
    assert failed.startswith("failed:")
    assert "unicorn.iso" in failed
    assert {path.name: path.read_bytes() for path in (tmp_path / "isos").iterdir()} == CONTENT


def test_beside_pulp(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The example "Beside Pulp" calls django.setup()."""
    done: list[str] = []
    django = ModuleType("django")
    vars(django)["setup"] = lambda: done.append("setup")
    monkeypatch.setitem(sys.modules, "django", django)
    run("Beside Pulp")
    assert done == ["setup"]


def test_nothing_is_missed() -> None:
    """The tests above run all code of the README, and each page that the README names exists."""
    text = README.read_text()
    assert text.count(".. code-block::") == text.count(".. code-block:: python") == 4
    assert not re.search(r"^ *>>>|\.\. code::|literalinclude", text, re.MULTILINE)
    named = re.findall(r"``docs/(\w+)\.rst``", text)
    assert named
    for name in named:
        assert (README.parent / "docs" / f"{name}.rst").is_file()
