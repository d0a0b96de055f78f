"""Tests of unchanged code that plugins wrote for the API of 2017."""

import hashlib
import json
import logging
import os
from types import SimpleNamespace

import pytest

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DigestValidation,
    Download,
    DownloadError,
    DownloadMonitor,
    Event,
    Factory,
    FileDownload,
    FileWriter,
    HttpDownload,
    NotAuthorized,
    NotFound,
    SizeValidation,
    Validation,
    ValidationError,
    Writer,
)

log = logging.getLogger(__name__)


def sha256(content):
    """Return the SHA-256 digest (hex)."""
    return hashlib.sha256(content).hexdigest()


class Importer:
    """The part of the 2017 importer model that plugins called."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def get_futures_downloader(self, url, destination, artifact=None):
        """Make a downloader as the plugin API of 2017 did."""
        return Factory(self).build(url, destination, artifact)


class Nop(Download):
    """A content unit whose artifact already exists."""

    def __init__(self, x):
        super().__init__("", None)
        self.attachment = x

    def _send(self):
        pass

    def __call__(self):
        """Do nothing."""


FILES = {f"files/{n}.bin": os.urandom(n * 101) for n in range(30)}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Make an empty working directory, as a task has one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def site(file_server):
    """Serve a repository as pulp_file publishes it, with some missing and some wrong files."""
    manifest = "".join(f"{path},{sha256(body)},{len(body)}\n" for path, body in FILES.items())
    served = {"/repo/" + path: body for path, body in FILES.items()}
    served["/repo/PULP_MANIFEST"] = manifest.encode()
    served["/repo/files/3.bin"] = b"another content"
    served["/repo/files/5.bin"] = bytes(len(FILES["files/5.bin"]))
    del served["/repo/files/7.bin"]
    return file_server(served, user=("admin", "secret"))


def test_synchronize(site, work):
    """The sync code of pulp_file of 2017 works: a manifest, then a batch of its files."""
    importer = Importer(
        ssl_ca_certificate="",
        ssl_client_certificate=None,
        ssl_validation=True,
        proxy_url=None,
        basic_auth_user="admin",
        basic_auth_password="secret",
        validate=True,
    )
    # the manifest
    download = importer.get_futures_downloader(site.url("/repo/PULP_MANIFEST"), "PULP_MANIFEST")
    download()
    with open(download.writer.path) as fp:
        entries = [line.strip().split(",") for line in fp]
    assert len(entries) == len(FILES)

    # the files
    done = []

    def downloads():
        for n, (path, digest, size) in enumerate(entries):
            artifact = SimpleNamespace(
                size=int(size), sha256=digest, md5=None, sha1="", sha512=None
            )
            download = importer.get_futures_downloader(
                site.url("/repo/" + path), os.path.join("sub", "dir", path), artifact
            )
            monitor = DownloadMonitor(download)
            download.attachment = (path, artifact, monitor)
            download.register(
                Event.SUCCEEDED, lambda event: done.append(event.download.writer.path)
            )
            yield download
            yield from (Nop((n, m)) for m in range(100))

    saved, failed, others = {}, {}, 0
    with Batch(downloads()) as batch:
        for plan in batch():
            try:
                plan.result()
            except DownloadError as error:
                path, _, _ = plan.download.attachment
                failed[path] = (plan.download.url, error, str(error))
                continue
            if isinstance(plan.download, Nop):
                others += 1
                continue
            path, artifact, monitor = plan.download.attachment
            with open(plan.download.writer.path, "rb") as fp:
                saved[path] = fp.read()
            facts = monitor.facts()
            assert facts["size"] == artifact.size
            assert facts["sha256"] == artifact.sha256

    assert others == 100 * len(FILES)
    assert set(failed) == {"files/3.bin", "files/5.bin", "files/7.bin"}
    assert saved == {path: body for path, body in FILES.items() if path not in failed}
    assert sorted(done) == sorted(os.path.join("sub", "dir", path) for path in saved)
    for path, (url, error, text) in failed.items():
        assert url == site.url("/repo/" + path)
        assert url in text
        assert "secret" not in text
        assert isinstance(error, NotFound if path == "files/7.bin" else ValidationError)
        assert not (work / "sub" / "dir" / path).exists()
    assert site.connections <= 5
    found = {str(p.relative_to(work)) for p in work.rglob("*") if p.is_file()}
    assert found == {"PULP_MANIFEST", *done}


def test_one_call(site, work):
    """The second form of the 2017 factory works, with validations appended by the plugin."""
    importer = SimpleNamespace(username="admin", password="secret")
    content = FILES["files/9.bin"]
    download = Factory.build(site.url("/repo/files/9.bin"), importer)
    download.validations.append(SizeValidation(len(content)))
    download.validations.append(DigestValidation("sha256", sha256(content)))
    download()
    assert download.writer.path == str(work / "9.bin")
    assert (work / "9.bin").read_bytes() == content
    assert download.reply.status_code == 200


@pytest.mark.parametrize(
    ("path", "user", "validation", "kind", "shown"),
    [
        ("/repo/none", "admin", None, NotFound, "404"),
        ("/repo/files/1.bin", "nobody", None, NotAuthorized, "401"),
        ("/repo/files/1.bin", "admin", SizeValidation(5), ValidationError, "5 bytes"),
        (
            "/repo/files/1.bin",
            "admin",
            DigestValidation("md5", "0" * 32),
            ValidationError,
            "0" * 32,
        ),
    ],
)
def test_shown_to_a_person(site, work, path, user, validation, kind, shown):
    """Errors of 2017 plugins show the URL and the problem, but no secret, and leave no file."""
    importer = Importer(username=user, password="secret")
    download = importer.get_futures_downloader(site.url(path), "file")
    if validation:
        download.validations.append(validation)
    with pytest.raises(DownloadError) as caught:
        download()
    assert type(caught.value) is kind or kind in type(caught.value).__mro__
    text = str(caught.value)
    assert site.url(path) in text
    assert shown in text
    assert "secret" not in text
    assert "\n" not in text
    assert caught.value.download is download
    assert list(work.iterdir()) == []


def test_handlers(site, work):
    """Each event that plugins of 2017 handled has the attributes that they read."""
    seen = []

    class Report:
        """Progress as a plugin reported it."""

        def __init__(self, download):
            self.bytes = 0
            self.attempts = 0
            download.register(Event.PREPARED, self.prepared)
            download.register(Event.FETCHED, self.fetched)
            download.register(Event.ERROR, self.error)
            download.register(Event.SUCCEEDED, self.succeeded)
            download.register(Event.FAILED, self.failed)

        def prepared(self, event):
            """Record the name."""
            seen.append(event.NAME)

        def fetched(self, event):
            """Count the bytes."""
            self.bytes += len(event.buffer)

        def error(self, event):
            """Set the credentials, and ask for another attempt."""
            self.attempts += 1
            event.download.user.name, event.download.user.password = "admin", "secret"
            event.repaired = isinstance(event.error, NotAuthorized)

        def succeeded(self, event):
            """Read the published file."""
            with open(event.download.writer.path, "rb") as fp:
                seen.append((event.NAME, len(fp.read())))

        def failed(self, event):
            """Record the name."""
            seen.append(event.NAME)

    download = Importer().get_futures_downloader(site.url("/repo/files/20.bin"), "20.bin")
    report = Report(download)
    download()
    assert (report.bytes, report.attempts) == (20 * 101, 1)
    assert seen == ["PREPARED", ("SUCCEEDED", 20 * 101)]

    seen.clear()
    download = Importer().get_futures_downloader(site.url("/repo/none"), "none")
    Report(download)
    with pytest.raises(NotFound):
        download()
    assert seen == ["PREPARED", "FAILED"]


def test_handler_with_a_bug(site, work, caplog):
    """An exception of a 2017 plugin's handler is logged, and the download succeeds."""
    download = Importer(username="admin", password="secret").get_futures_downloader(
        site.url("/repo/files/2.bin"), "2.bin"
    )
    download.register(Event.SUCCEEDED, lambda event: event.no_such_attribute)
    download()
    assert (work / "2.bin").read_bytes() == FILES["files/2.bin"]
    assert "no_such_attribute" in caplog.text


def test_metadata_in_memory(site, file_server):
    """Plugins of 2017 can download metadata into a buffer and parse its text."""
    server = file_server({"/pypi/shelf/json": json.dumps({"releases": {"1.0": []}}).encode()})
    download = HttpDownload(server.url("/pypi/shelf/json"), BufferWriter())
    download()
    assert json.loads(download.writer.content()) == {"releases": {"1.0": []}}
    assert json.loads(download.writer.read()) == {"releases": {"1.0": []}}


class Generated(Download):
    """A plugin's own protocol, which overrides only _send."""

    def _send(self):
        for part in (b"one ", b"two"):
            self._write(part)


def test_subclass_overrides_call(work):
    """A 2017 download class that overrides __call__ may do more before and after."""
    log = []

    class Timed(Generated):
        def __call__(self):
            log.append("before")
            super().__call__()
            log.append("after")

    with open(work / "file", "wb") as fp, Batch([Timed("test://x", Writer(fp))]) as batch:
        for plan in batch():
            plan.result()
    assert log == ["before", "after"]
    assert (work / "file").read_bytes() == b"one two"


def test_subclasses(work):
    """Downloads, writers and validations that override the methods of 2017 still work."""
    log = []

    class Logging(FileWriter):
        """Overrides all methods, and calls those of the base class."""

        def open(self):
            log.append("open")
            super().open()

        def append(self, buffer):
            log.append(len(buffer))
            return super().append(buffer)

        def close(self):
            log.append("close")
            super().close()

    class NoX(Validation):
        """Has a state of its own."""

        found = False

        def update(self, buffer):
            self.found = self.found or b"x" in buffer

        def apply(self):
            if self.found:
                raise ValidationError(None, "an x")

    download = Generated("test://generated", Logging("generated"))
    download.validations.append(NoX())
    download()
    assert (work / "generated").read_bytes() == b"one two"
    assert log == ["open", 4, 3, "close"]


def test_files_of_this_machine(work):
    """Code of 2017 plugins works with file URLs of a local repository."""
    (work / "repo").mkdir()
    (work / "repo" / "a").write_bytes(b"content")
    importer = Importer(validate=True, username="unused")
    artifact = SimpleNamespace(size=7, sha256=sha256(b"content"))
    good = importer.get_futures_downloader(f"file://{work}/repo/a", "out/a", artifact)
    bad = importer.get_futures_downloader(
        f"file://{work}/repo/a", "out/b", SimpleNamespace(size=8, sha256=None)
    )
    assert type(good) is FileDownload
    with Batch([good, bad]) as batch:
        results = {plan.download: plan.error for plan in batch()}
    assert results[good] is None
    assert isinstance(results[bad], ValidationError)
    assert [path.name for path in (work / "out").iterdir()] == ["a"]


def test_thousands_of_nops():
    """Empty downloads of 2017 plugins are each returned once with their attachments."""
    with Batch(Nop(n) for n in range(5_000)) as batch:
        assert sorted(plan.result().attachment for plan in batch()) == list(range(5_000))
