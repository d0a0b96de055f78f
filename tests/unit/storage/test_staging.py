"""Tests of staging files, and of the partial files that stay for the next run."""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import threading

import pytest
from processes import forked
from servers.leaks import open_files

from pulpcore.plugin.download.futures import FileWriter
from pulpcore.plugin.download.futures.storage import staging
from pulpcore.plugin.download.futures.storage.staging import Partial, Temporary

NOTE = "what it is"
CONTENT = b"the first half"


@pytest.fixture
def target(tmp_path):
    """Return the path of the future file."""
    return tmp_path / "file"


@pytest.fixture(autouse=True)
def no_descriptor_left():
    """Assert that test and code close every descriptor."""
    before = open_files()
    yield
    assert open_files() == before


def beside(target):
    """Return the names of all files beside the target."""
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def paths(target):
    """Return the paths of the partial file and of its note."""
    stage = opened(Partial(str(target)))
    stage.remember("?")
    names = beside(target)
    stage.forget()
    finish(stage)
    partial, note = (
        next(target.parent / name for name in names if name.endswith(end))
        for end in (".partial", ".note")
    )
    return partial, note


def opened(stage):
    """Open a staging file, and return it."""
    stage.open()
    return stage


def finish(stage):
    """Close and drop, as a writer does."""
    stage.file.close()
    stage.drop()


def leave(target, content=CONTENT, note=NOTE):
    """Leave what a failed run leaves."""
    stage = opened(Partial(str(target)))
    stage.forget()
    stage.remember(note)
    stage.file.write(content)
    finish(stage)


def found(target):
    """Return what the next run finds: the note and the content."""
    stage = opened(Partial(str(target)))
    content = os.pread(stage.file.fileno(), 1000, 0)
    assert len(content) == stage.size == os.lseek(stage.file.fileno(), 0, os.SEEK_CUR)
    finish(stage)
    return stage.note, content


class TestTemporary:
    def test_publish(self, target):
        """A temporary file is in the target's folder, replaces the target and leaves no other."""
        stage = opened(Temporary(str(target)))
        assert re.fullmatch(r"\.download-[0-9a-f]{16}", *beside(target))
        assert not target.exists()
        stage.file.write(b"new")
        stage.file.close()
        stage.publish()
        stage.drop()
        assert target.read_bytes() == b"new"
        assert beside(target) == []

    def test_drop(self, target):
        """Dropping a temporary file removes it and keeps the old file. It may be repeated."""
        target.write_bytes(b"old")
        stage = opened(Temporary(str(target)))
        stage.file.write(b"new")
        finish(stage)
        stage.drop()
        assert target.read_bytes() == b"old"
        assert beside(target) == []

    def test_mode(self, target):
        """A temporary file has the permissions of any new file and isn't inherited by programs."""
        stage = opened(Temporary(str(target)))
        twin = target.with_name("twin")
        twin.touch()
        assert os.fstat(stage.file.fileno()).st_mode == twin.stat().st_mode
        assert not os.get_inheritable(stage.file.fileno())
        finish(stage)

    def test_many(self, target):
        """Many temporary files of one target may exist at once."""
        stages = [opened(Temporary(str(target))) for _ in range(50)]
        assert len(beside(target)) == 50
        for stage in stages:
            finish(stage)

    def test_no_folder(self, target):
        """A missing folder raises FileNotFoundError, after which the caller can create it."""
        with pytest.raises(FileNotFoundError):
            opened(Temporary(str(target / "sub")))

    def test_folder_in_the_way(self, target):
        """If a folder is at the target path, publishing raises and the folder stays."""
        stage = opened(Temporary(str(target)))
        (target / "sub").mkdir(parents=True)
        stage.file.close()
        with pytest.raises(IsADirectoryError):
            stage.publish()
        stage.drop()
        assert (target / "sub").is_dir()
        assert beside(target) == []


class TestPartial:
    def test_nothing_there(self, target):
        """At first a partial file has no note and no content. Without a note nothing is kept."""
        stage = opened(Partial(str(target)))
        assert (stage.note, stage.size) == (None, 0)
        stage.file.write(CONTENT)
        finish(stage)
        assert beside(target) == []

    def test_go_on(self, target):
        """The next run finds the partial file and appends to it."""
        leave(target)
        stage = opened(Partial(str(target)))
        assert (stage.note, stage.size) == (NOTE, len(CONTENT))
        stage.taken_up()
        stage.file.write(b" and more")
        finish(stage)
        assert found(target) == (NOTE, CONTENT + b" and more")

    def test_publish(self, target):
        """Publishing a partial file leaves neither note nor lock nor any other file."""
        target.write_bytes(b"old")
        leave(target)
        stage = opened(Partial(str(target)))
        stage.taken_up()
        stage.file.write(b" and the rest")
        stage.file.close()
        stage.publish()
        assert target.read_bytes() == CONTENT + b" and the rest"
        assert beside(target) == []

    def test_cannot_be_published(self, target):
        """If publishing fails, the error is raised and the partial file stays for a later run."""
        leave(target)
        stage = opened(Partial(str(target)))
        (target / "sub").mkdir(parents=True)
        stage.file.close()
        with pytest.raises(IsADirectoryError):
            stage.publish()
        stage.drop()
        assert found(target) == (NOTE, CONTENT)

    def test_cannot_be_published_without_a_note(self, target):
        """If publishing fails, a file without a note doesn't stay."""
        stage = opened(Partial(str(target)))
        (target / "sub").mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            stage.publish()
        stage.drop()
        assert beside(target) == []

    def test_killed_while_it_is_published(self, target, monkeypatch):
        """A kill around the renaming leaves no note without a partial file."""
        _, note = paths(target)
        leave(target)
        stage = opened(Partial(str(target)))
        stage.taken_up()
        seen = []
        replace = os.replace

        def watched(source, to):
            seen.append(note.exists())
            replace(source, to)
            seen.append(note.exists())

        monkeypatch.setattr(os, "replace", watched)
        stage.publish()
        assert seen == [False, False]
        assert target.read_bytes() == CONTENT

    def test_forget(self, target):
        """forget() deletes content and note, and writing continues at 0."""
        leave(target)
        stage = opened(Partial(str(target)))
        stage.forget()
        assert (stage.note, stage.size) == (None, 0)
        stage.file.write(b"other")
        assert os.fstat(stage.file.fileno()).st_size == 5
        finish(stage)
        assert beside(target) == []

    def test_remember_anew(self, target):
        """A new note replaces the first one, and an equal one isn't written again."""
        _, note = paths(target)
        leave(target)
        stage = opened(Partial(str(target)))
        stage.taken_up()
        number = note.stat().st_ino, note.stat().st_mtime_ns
        stage.remember(NOTE)
        assert (note.stat().st_ino, note.stat().st_mtime_ns) == number
        stage.remember("another")
        finish(stage)
        assert found(target) == ("another", CONTENT)

    @pytest.mark.parametrize("how", ["no descriptor", "full", "full in the middle", "too long"])
    def test_remember_where_it_cannot_be_written(self, target, monkeypatch, how):
        """If the note can't be written, an error is raised and no partial file stays."""
        leave(target)
        stage = opened(Partial(str(target)))
        stage.taken_up()
        stage.file.write(CONTENT)

        def refuse(*unused, **also_unused):
            raise OSError(errno.ENOSPC, "full")

        note = "x" * 5000 if how == "too long" else "another"
        with monkeypatch.context() as patch:
            if how == "no descriptor":
                patch.setattr(os, "open", refuse)
            elif how == "full":
                patch.setattr(os, "write", refuse)
            elif how == "full in the middle":
                patch.setattr(os, "write", lambda *unused: 7)
            with pytest.raises(OSError, match=r"full|part|long"):
                stage.remember(note)
        finish(stage)
        assert beside(target) == []

    def test_remember_in_a_folder_that_became_read_only(self, target, monkeypatch):
        """A note that can be neither written nor removed says why it couldn't be written."""
        stage = opened(Partial(str(target)))

        def refuse_to_remove(*unused):
            raise OSError(errno.EROFS, "read only")

        def refuse(*unused):
            patch.setattr(os, "unlink", refuse_to_remove)
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse)
            with pytest.raises(OSError, match="full"):
                stage.remember(NOTE)
        finish(stage)
        assert beside(target) == []

    def test_no_byte(self, target):
        """An empty partial file and its note aren't kept."""
        stage = opened(Partial(str(target)))
        stage.remember(NOTE)
        assert len(beside(target)) == 2
        finish(stage)
        assert beside(target) == []

    @pytest.mark.parametrize("note", [None, "another", NOTE])
    def test_not_taken_up(self, target, note):
        """A run that ignores the partial file begins at byte 0 with its own note.

        The old note is deleted before the first byte is written, so not even a killed run leaves it
        beside other content.
        """
        partial, note_path = paths(target)
        leave(target)
        stage = opened(Partial(str(target)))
        if note is not None:
            stage.remember(note)
            assert partial.read_bytes() == b""
        stage.file.write(b"other content")
        assert note_path.exists() is (note is not None)
        assert partial.read_bytes() == b"other content"
        finish(stage)
        assert found(target) == ((None, b"") if note is None else (note, b"other content"))

    def test_nothing_written(self, target):
        """A run that fails before it writes keeps the existing partial file."""
        leave(target)
        finish(opened(Partial(str(target))))
        assert found(target) == (NOTE, CONTENT)

    def test_cut_short(self, target):
        """A note is valid only if the partial file has as many bytes as it says."""
        partial, _ = paths(target)
        stage = opened(Partial(str(target)))
        stage.file.write(CONTENT)
        stage.remember(NOTE)
        finish(stage)
        os.truncate(partial, len(CONTENT) - 1)
        assert found(target) == (None, b"")

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
    @pytest.mark.parametrize(("name", "at"), [("open", 1), ("open", 2), ("read", 1), ("dup", 1)])
    def test_used_up(self, target, monkeypatch, name, at, number):
        """If this process is out of descriptors, the partial file stays as it is."""
        leave(target)
        real = getattr(os, name)
        calls = []

        def refuse(*arguments):
            calls.append(arguments)
            if len(calls) == at:
                raise OSError(number, "used up")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(OSError, match="used up"):
                opened(Partial(str(target)))
        assert len(calls) == at
        assert found(target) == (NOTE, CONTENT)

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
    def test_no_locks(self, target, monkeypatch, number):
        """On a file system without locks the existing file stays, and no empty file is left."""

        def refuse(*unused):
            raise OSError(number, "no locks")

        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuse)
            with pytest.raises(OSError, match="no locks"):
                opened(Partial(str(target)))
        assert beside(target) == []
        leave(target)
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuse)
            with pytest.raises(OSError, match="no locks"):
                opened(Partial(str(target)))
        assert found(target) == (NOTE, CONTENT)

    def test_no_second_descriptor(self, target, monkeypatch):
        """If the descriptor can't be duplicated, neither file nor note is left."""

        def refuse(*unused):
            raise OSError(errno.EMFILE, "used up")

        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            with pytest.raises(OSError, match="used up"):
                opened(Partial(str(target)))
        assert beside(target) == []
        leave(target)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            with pytest.raises(OSError, match="used up"):
                opened(Partial(str(target)))
        assert found(target) == (NOTE, CONTENT)

    def test_mode(self, target):
        """A partial file never has more permission bits than the final file."""
        before = os.umask(0o077)
        try:
            stage = opened(Partial(str(target), 0o640))
            assert stat.S_IMODE(os.fstat(stage.file.fileno()).st_mode) == 0o640
            finish(stage)
        finally:
            os.umask(before)

    def test_secrets(self, target):
        """The note of a partial file is readable by its owner only."""
        _, note = paths(target)
        leave(target)
        assert stat.S_IMODE(note.stat().st_mode) == 0o600

    def test_two_targets(self, target):
        """Each target has its own partial file, even with names of the greatest length."""
        other = target.with_name("o" * 255)
        leave(target, b"one", "1")
        leave(other, b"two", "2")
        assert (found(target), found(other)) == (("1", b"one"), ("2", b"two"))

    @pytest.mark.parametrize("name", [b"\xff\xfe", "ü".encode(), b"a\nb"])
    def test_odd_names(self, target, name):
        """The target's name may be undecodable."""
        odd = target.with_name(os.fsdecode(name))
        leave(odd)
        assert found(odd) == (NOTE, CONTENT)

    def test_no_folder(self, target):
        """For a partial file a missing folder raises an error, and the caller can create it."""
        with pytest.raises(FileNotFoundError):
            opened(Partial(str(target / "sub")))


# What somebody may have put in place of the partial file.


def _gone(partial, note):
    partial.unlink()


def _link(partial, note):
    elsewhere = partial.with_name("elsewhere")
    elsewhere.write_bytes(b"precious")
    partial.unlink()
    partial.symlink_to(elsewhere)


def _dangling_link(partial, note):
    partial.unlink()
    partial.symlink_to(partial.with_name("nowhere"))


def _hard_link(partial, note):
    partial.with_name("elsewhere").write_bytes(b"precious")
    partial.unlink()
    partial.hardlink_to(partial.with_name("elsewhere"))


def _pipe(partial, note):
    partial.unlink()
    os.mkfifo(partial)


def _folder(partial, note):
    partial.unlink()
    partial.mkdir()


def _full_folder(partial, note):
    partial.unlink()
    (partial / "sub").mkdir(parents=True)


def _not_writable(partial, note):
    partial.chmod(0)


# What somebody may have put in place of the note.


def _no_note(partial, note):
    note.unlink()


def _note_link(partial, note):
    copy = note.with_name("copy")
    note.rename(copy)
    note.symlink_to(copy)


def _note_pipe(partial, note):
    note.unlink()
    os.mkfifo(note)


def _note_folder(partial, note):
    note.unlink()
    note.mkdir()


def _note_full_folder(partial, note):
    note.unlink()
    (note / "sub").mkdir(parents=True)


def _note(content):
    def write(partial, note):
        note.write_bytes(content)

    return write


def _without(key):
    def write(partial, note):
        content = json.loads(note.read_text())
        del content[key]
        note.write_text(json.dumps(content))

    return write


def _with(key, value):
    def write(partial, note):
        note.write_text(json.dumps(json.loads(note.read_text()) | {key: value}))

    return write


TAMPERED = {
    "no partial file": _gone,
    "link": _link,
    "link to nowhere": _dangling_link,
    "hard link": _hard_link,
    "pipe": _pipe,
    "folder": _folder,
    "folder that isn't empty": _full_folder,
    "no note": _no_note,
    "note is a link": _note_link,
    "note is a pipe": _note_pipe,
    "note is a folder": _note_folder,
    "note is a folder that isn't empty": _note_full_folder,
    "note is empty": _note(b""),
    "note is garbage": _note(b"\x00\xff garbage"),
    "note is cut short": _note(b'{"kind": "pulpcore-futures part'),
    "note is deeply nested": _note(b"[" * 4096),
    "note is a list": _note(b"[1, 2]"),
    "note is a number": _note(b"1" * 4090),
    "note is too long": _with("note", "x" * 10_000),
    "note of another kind": _with("kind", "pulpcore-futures partial download 0"),
    "note without a kind": _without("kind"),
    "note without a note": _without("note"),
    "note is no text": _with("note", 7),
    "note is null": _with("note", None),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_thrown_away(target, tamper):
    """A partial file or note that isn't ours is deleted, and the download succeeds."""
    partial, note = paths(target)
    leave(target)
    tamper(partial, note)
    writer = FileWriter(target, resume=True)
    with writer:
        assert writer.recall() is None
        assert list(writer.replay(100)) == []
        writer.remember("new")
        writer.append(b"new content")
    assert target.read_bytes() == b"new content"
    assert target.is_file()
    assert not target.is_symlink()
    # A folder belongs to somebody and may not be empty, so it is left alone.
    assert not os.path.lexists(partial) or partial.is_dir()
    assert not os.path.lexists(note) or note.is_dir()


@pytest.mark.parametrize("tamper", [_full_folder, _note_full_folder])
def test_folder_stays(target, tamper):
    """A non-empty folder in place of the partial file is never deleted."""
    partial, note = paths(target)
    leave(target)
    tamper(partial, note)
    with FileWriter(target, resume=True) as writer:
        writer.append(b"new content")
    assert (partial / "sub").is_dir() or (note / "sub").is_dir()


@pytest.mark.parametrize("tamper", [_link, _hard_link])
def test_what_a_link_leads_to_stays(target, tamper):
    """A symbolic link in place of the partial file isn't written through."""
    partial, note = paths(target)
    leave(target)
    tamper(partial, note)
    stage = opened(Partial(str(target)))
    stage.file.write(b"new content")
    finish(stage)
    assert partial.with_name("elsewhere").read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_other_owner(target):
    """A partial file that belongs to another user isn't resumed."""
    partial, _ = paths(target)
    leave(target)
    os.chown(partial, 65534, 65534)
    assert found(target) == (None, b"")


class TestForeignBytes:
    """A note counts only for the very bytes that it was written for."""

    def test_appended(self, target):
        """Bytes that somebody appended after the run had ended are not resumed."""
        partial, _ = paths(target)
        leave(target)
        with partial.open("ab") as file:
            file.write(b"foreign")
        stage = opened(Partial(str(target)))
        assert (stage.note, stage.size) == (None, 0)
        stage.file.close()
        stage.drop()

    @pytest.mark.parametrize("in_place", [True, False])
    def test_replaced(self, target, in_place):
        """Another file of the same size isn't resumed, even if it gets the same inode."""
        partial, _ = paths(target)
        leave(target)
        if in_place:
            os.utime(partial, ns=(0, 0))
        else:
            other = partial.with_name("other")
            other.write_bytes(partial.read_bytes())
            shutil.copystat(partial, other)
            other.replace(partial)
        stage = opened(Partial(str(target)))
        assert (stage.note, stage.size) == (None, 0)
        stage.file.close()
        stage.drop()

    def test_killed_after_it_was_resumed(self, target):
        """A run that was killed after it had resumed leaves more bytes, which are resumed."""
        leave(target)
        first = opened(Partial(str(target)))
        first.taken_up()
        first.file.write(b"more")
        # What a kill leaves: no note is written any more.
        first.abandon()
        staging._held.clear()
        stage = opened(Partial(str(target)))
        assert (stage.note, stage.size) == (NOTE, len(CONTENT) + 4)
        stage.forget()
        stage.file.close()
        stage.drop()

    def test_abandoned_before_it_has_a_file(self, target):
        """A child forked while the file is opened can let go of the lock before there is a file."""
        stage = opened(Partial(str(target)))
        file = stage.file
        del stage.file
        stage.abandon()
        assert stage._lock == -1
        staging._held.clear()
        file.close()

    def test_interrupted_while_it_is_opened(self, target, monkeypatch):
        """A Ctrl-C just after a good partial file was opened keeps it for the next run."""
        partial, _ = paths(target)
        leave(target)

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Partial, "_is_locked", interrupt)
            stage = Partial(str(target))
            with pytest.raises(KeyboardInterrupt):
                stage.open()
            stage.drop()
        # The lost descriptor, which the interrupted open() had returned.
        staging._close_lost(str(partial))
        assert found(target) == (NOTE, CONTENT)

    def test_note_that_cannot_be_rewritten(self, target, monkeypatch):
        """If the file system becomes read-only, the note stays unchanged and valid."""
        stage = opened(Partial(str(target)))
        stage.remember(NOTE)
        stage.file.write(CONTENT)
        real = os.open

        def refuse(path, flags, *mode):
            if flags & os.O_WRONLY and str(path).endswith(".note"):
                raise OSError(errno.EROFS, "Read-only file system")
            return real(path, flags, *mode)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            stage.drop()
        stage = opened(Partial(str(target)))
        assert (stage.note, stage.size) == (NOTE, len(CONTENT))
        stage.forget()
        stage.file.close()
        stage.drop()


class TestTwoAtOnce:
    def test_second_is_refused(self, target):
        """While one writer has the partial file, a second one is refused and changes nothing."""
        leave(target)
        first = opened(Partial(str(target)))
        with pytest.raises(BlockingIOError):
            opened(Partial(str(target)))
        assert (first.note, first.size) == (NOTE, len(CONTENT))
        finish(first)
        assert found(target) == (NOTE, CONTENT)

    def test_other_process(self, target):
        """While one writer has the partial file, another process is refused."""
        leave(target)

        def work():
            with pytest.raises(BlockingIOError):
                opened(Partial(str(target)))

        first = opened(Partial(str(target)))
        assert forked(work) == 0
        finish(first)

    def test_after_the_first_is_through(self, target, monkeypatch):
        """A writer that opened the partial file just before its publication can't write to it."""
        first = opened(Partial(str(target)))
        first.file.write(b"first")
        first.file.close()
        flock = fcntl.flock

        def late(descriptor, how):
            monkeypatch.setattr(fcntl, "flock", flock)
            first.publish()
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", late)
        second = opened(Partial(str(target)))
        assert (second.note, second.size) == (None, 0)
        second.file.write(b"2")
        assert target.read_bytes() == b"first"
        second.file.close()
        second.publish()
        assert target.read_bytes() == b"2"

    def test_three_at_once(self, target, monkeypatch):
        """Of three writers that open a partial file in turn, no two ever have the same."""
        first = opened(Partial(str(target)))
        first.file.close()
        flock = fcntl.flock
        third = []

        def late(descriptor, how):
            monkeypatch.setattr(fcntl, "flock", flock)
            first.publish()
            third.append(opened(Partial(str(target))))
            third[0].file.write(b"third")
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", late)
        try:
            second = opened(Partial(str(target)))
        except BlockingIOError:
            pass
        else:
            second.file.write(b"par")
            finish(second)
        third[0].file.close()
        third[0].publish()
        assert target.read_bytes() == b"third"

    def test_never_publishes_what_another_wrote(self, target):
        """A partial file that was replaced by another writer's isn't published as ours."""
        partial, _ = paths(target)
        target.write_bytes(b"old")
        stage = opened(Partial(str(target)))
        stage.file.write(b"whole")
        stage.file.close()
        partial.unlink()
        partial.write_bytes(b"half of ano")
        with pytest.raises(OSError):  # noqa: PT011 - whichever it is
            stage.publish()
        stage.drop()
        assert target.read_bytes() == b"old"

    def test_made_at_the_same_moment(self, target, monkeypatch):
        """If another writer creates the partial file at the same moment, that is detected."""
        real = os.open
        there = []

        def late(path, flags, *arguments):
            if flags & os.O_CREAT and not there:
                there.append(real(path, flags, *arguments))
            return real(path, flags, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", late)
            stage = opened(Partial(str(target)))
        os.close(there[0])
        stage.file.write(b"content")
        stage.publish()
        assert target.read_bytes() == b"content"

    def test_dropped_twice(self, target):
        """Dropping twice is harmless, even if its descriptor number was reused."""
        stage = opened(Partial(str(target)))
        finish(stage)
        other = opened(Partial(str(target)))
        stage.drop()
        other.file.write(b"content")
        other.publish()
        assert target.read_bytes() == b"content"

    def test_never_to_be_had(self, target, monkeypatch):
        """If other writers always come first, opening gives up with an error."""
        monkeypatch.setattr(staging, "_is_at", lambda *unused: False)
        with pytest.raises(BlockingIOError):
            opened(Partial(str(target)))
        with FileWriter(target, resume=True) as writer:
            writer.append(b"new")
        assert target.read_bytes() == b"new"

    def test_many_threads(self, target):
        """Of many threads exactly one has the partial file at any time."""
        begin = threading.Barrier(8)
        got = []

        def work():
            begin.wait()
            for _ in range(30):
                try:
                    stage = opened(Partial(str(target)))
                except BlockingIOError:
                    continue
                got.append(stage.size)
                stage.remember(NOTE)
                stage.forget()
                finish(stage)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert got
        assert set(got) == {0}
        assert beside(target) == []


def test_error_leaves_nothing_open(target, monkeypatch):
    """A failure at any call while opening leaves no descriptor and no lock."""

    def refuse(*unused):
        raise OSError(errno.EIO, "broken")

    for module, name in [(fcntl, "flock"), (os, "fstat"), (os, "dup"), (os, "lseek")]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(OSError, match="broken"):
                opened(Partial(str(target)))
    assert found(target) == (None, b"")


class TestForks:
    def test_names(self, target):
        """Forked children take different temporary names from their parent and each other."""

        def name():
            stage = opened(Temporary(str(target)))
            (found,) = {path.name for path in target.parent.iterdir()} - before
            finish(stage)
            return found

        before = set()
        names = []
        for number in range(3):
            path = target.with_name(f"name{number}")
            before = {each.name for each in target.parent.iterdir()}
            assert forked(lambda path=path: path.write_text(name())) == 0
            names.append(path.read_text())
        assert len(set(names)) == 3

    def test_lock(self, target):
        """A surviving forked child doesn't keep the lock of its parent's partial file."""
        leave(target)
        stage = opened(Partial(str(target)))
        ours, theirs = socket.socketpair()
        child = os.fork()
        if not child:
            ours.close()
            theirs.send(b"I live")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        try:
            assert ours.recv(100)
            # Like a dying parent, which unlocks nothing.
            os.close(stage._lock)
            staging._held.pop(stage._lock)
            stage.file.close()
            assert found(target) == (NOTE, CONTENT)
        finally:
            ours.close()
            os.waitpid(child, 0)

    def test_unlocked(self, target, monkeypatch):
        """A forked child with an inherited descriptor doesn't keep a released lock."""
        leave(target)
        monkeypatch.setattr(staging, "_held", {})
        stage = opened(Partial(str(target)))
        twin = os.dup(stage._lock)
        finish(stage)
        assert found(target) == (NOTE, CONTENT)
        os.close(twin)

    @pytest.mark.parametrize("kind", [Temporary, Partial])
    def test_drop(self, target, kind):
        """A forked child that drops its parent's partial file doesn't remove it."""
        stage = opened(kind(str(target)))
        stage.file.write(CONTENT)
        assert forked(stage.drop) == 0
        stage.publish()
        assert target.read_bytes() == CONTENT
        assert beside(target) == []


def test_never_ours(target, monkeypatch):
    """If other writers replace the partial file again and again, opening it fails."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with pytest.raises(BlockingIOError):
        opened(Partial(str(target)))
