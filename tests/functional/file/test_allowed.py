"""Tests of `FileDownload.allowed_paths`, which limits the folders that a download may read."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pulpcore.plugin.download.futures import (
    BufferWriter,
    DownloadFailed,
    Factory,
    FileDownload,
    NotAuthorized,
    NotFound,
)

REFUSED = "the file isn't in a folder that allowed_paths names"


@pytest.fixture
def inside(tmp_path):
    """Create an allowed folder that contains a file."""
    # The checks resolve symbolic links. A link above the test's folder would disturb them.
    folder = tmp_path.resolve() / "allowed"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(b"well")
    return folder


@pytest.fixture
def outside(inside):
    """Create a forbidden folder with a file. Its name begins with the name of the allowed one."""
    folder = inside.parent / "allowed2"
    folder.mkdir()
    (folder / "file").write_bytes(b"secret")
    return folder


def make(path, *allowed):
    """Make a download of a path into memory."""
    return FileDownload(f"file://{path}", BufferWriter(), allowed_paths=allowed)


def refused(download):
    """Assert that the download is refused, and that its error doesn't say why."""
    with pytest.raises(NotAuthorized) as caught:
        download()
    assert caught.value.reason == REFUSED
    assert download.error == errno.EACCES
    assert download.position == 0


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_inside(inside, outside, kind, no_leaks):
    """FileDownload reads a file in or below any of the allowed folders."""
    download = make(inside / "sub" / "file", kind("/nowhere"), kind(inside))
    for _ in range(2):
        download()
        assert download.writer.content() == "well"
        assert download.error == 0
        here, download.url = download.url, f"file://{outside}/file"
        refused(download)
        download.url = here


def test_the_file_itself(inside):
    """An allowed path may name a single file. The path `/` allows every file."""
    for allowed in (inside / "sub" / "file", "/", f"{inside}/", f"{inside}//sub/../sub/"):
        download = make(inside / "sub" / "file", allowed)
        download()
        assert download.writer.content() == "well"


def test_off_by_default(outside):
    """Without `allowed_paths` every file may be read; an empty list allows no file."""
    download = FileDownload(f"file://{outside}/file", BufferWriter())
    assert download.allowed_paths is None
    download()
    assert download.writer.content() == "secret"
    refused(make(outside / "file"))


@pytest.mark.parametrize(
    "path",
    [
        "{outside}/file",
        "{inside}/../allowed2/file",
        "{inside}/sub/../../allowed2/file",
        "{inside}/%2e%2e/allowed2/file",
        "{inside}/..%2fallowed2/file",
        "{inside}/link/file",
        "{inside}/relative/file",
        "{inside}/file",
        "{inside}/chain",
        "/proc/self/root{outside}/file",
        # A missing or unreadable file is refused with the same words.
        "{outside}/missing",
        "{outside}/file/below",
        "{inside}/link/missing",
        "{inside}/missing/../../allowed2/file",
        # These paths lead through existing and missing folders. The error must not reveal which
        # exist.
        "{outside}/../{name}/sub/file",
        "{outside}/missing/../../{name}/sub/file",
        "{outside}/file/../../{name}/sub/file",
        "{inside}/dangling",
        "{outside}/",
        "{outside}",
        "/dev/null",
        "/",
    ],
)
def test_outside(inside, outside, path):
    """A file outside the allowed folders is refused by whatever path.

    Whether it exists is not revealed.
    """
    (inside / "link").symlink_to(outside)
    (inside / "relative").symlink_to("../allowed2")
    (inside / "file").symlink_to(outside / "file")
    (inside / "chain").symlink_to("file")
    (inside / "dangling").symlink_to(outside / "missing")
    refused(make(path.format(inside=inside, outside=outside, name=inside.name), inside))


def test_links_that_lead_inside(inside, outside):
    """A symbolic link to an allowed file is followed, and an allowed path may be a link itself."""
    (outside / "link").symlink_to(inside)
    (inside / "link").symlink_to("sub/file")
    for path in (inside / "link", outside / "link" / "link"):
        for allowed in (inside, outside / "link"):
            download = make(path, allowed)
            download()
            assert download.writer.content() == "well"


def test_descriptors(inside, outside):
    """FileDownload refuses open files reached through /proc/self/fd, and pipes."""
    with (outside / "file").open() as file:
        refused(make(f"/proc/self/fd/{file.fileno()}", inside))
        refused(make(f"/dev/fd/{file.fileno()}", inside))
    read, write = os.pipe()
    refused(make(f"/proc/self/fd/{read}", inside))
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        ("missing", NotFound, errno.ENOENT),
        ("sub/file/below", NotFound, errno.ENOTDIR),
        ("sub", DownloadFailed, errno.EISDIR),
        ("pipe", DownloadFailed, errno.EINVAL),
        ("loop", DownloadFailed, errno.ELOOP),
    ],
)
def test_failures_inside(inside, name, kind, number, no_leaks):
    """For an allowed path the usual error and errno are reported, such as NotFound or EISDIR."""
    os.mkfifo(inside / "pipe")
    (inside / "loop").symlink_to("loop")
    download = make(inside / name, inside)
    with pytest.raises(kind) as caught:
        download()
    assert type(caught.value) is kind
    assert download.error == number


def test_pipe_outside(inside, outside):
    """A refused pipe is never opened, so a process that waits to write to it keeps waiting."""
    pipe = outside / "pipe"
    os.mkfifo(pipe)
    refused(make(pipe, inside))
    (inside / "pipe").symlink_to(pipe)
    opened = []
    real = os.open

    def watch(path, flags, *rest, **options):
        descriptor = real(path, flags, *rest, **options)
        opened.append((os.readlink(f"/proc/self/fd/{descriptor}"), bool(flags & os.O_PATH)))
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", watch)
        refused(make(inside / "pipe", inside))
    assert opened == [(str(pipe), True)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_link_that_turns(inside, outside, monkeypatch, moment):
    """Replacing a symbolic link during the check can't make FileDownload read a forbidden file."""
    link = inside / "link"
    link.symlink_to("sub/file")
    real = os.readlink

    def turn():
        link.unlink()
        link.symlink_to(outside / "file")

    def look(path, **options):
        if moment == "before":
            turn()
        found = real(path, **options)
        if moment == "after":
            turn()
        return found

    monkeypatch.setattr(os, "readlink", look)
    download = make(link, inside)
    download()
    assert download.writer.content() == "well"
    monkeypatch.undo()
    refused(download)


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        ("/", "a list"),
        (b"/", "a list"),
        (Path("/"), "a list"),
        (["relative"], "absolute"),
        ([""], "absolute"),
        (["~"], "absolute"),
        ([None], "absolute"),
        ([7], "absolute"),
        (["/a\0b"], "absolute"),
    ],
)
def test_nonsense(inside, allowed, said):
    """If `allowed_paths` isn't a list of absolute paths, the error names the setting."""
    download = make(inside / "sub" / "file")
    download.allowed_paths = allowed
    with pytest.raises(DownloadFailed, match=f"allowed_paths: .*{said}"):
        download()


def test_another_system(inside, monkeypatch):
    """Where the system lacks what the check needs, FileDownload refuses to read any file."""
    download = make(inside / "sub" / "file", inside)
    with monkeypatch.context() as patch:
        patch.delattr(os, "O_PATH")
        with pytest.raises(DownloadFailed, match="allowed_paths: can't be checked"):
            download()

    def fail(path, **options):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(os, "readlink", fail)
    with pytest.raises(DownloadFailed, match="allowed_paths can't be checked, as /proc") as caught:
        download()
    assert type(caught.value) is DownloadFailed


def test_clone(inside, outside):
    """A clone has the `allowed_paths` of its original, and changing them affects only the clone."""
    download = FileDownload(f"file://{outside}/file", BufferWriter(), [inside])
    clone = download.clone()
    refused(clone)
    clone.allowed_paths.append(outside)
    clone()
    refused(download)


def test_factory(inside, outside, tmp_path):
    """A factory passes its `allowed_paths` to each file download that it builds."""
    factory = Factory(SimpleNamespace(), allowed_paths=[inside])
    factory.build(f"file://{inside}/sub/file", tmp_path / "a")()
    assert (tmp_path / "a").read_bytes() == b"well"
    refused(factory.build(f"file://{outside}/file", tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    Factory(SimpleNamespace()).build(f"file://{outside}/file", tmp_path / "b")()
