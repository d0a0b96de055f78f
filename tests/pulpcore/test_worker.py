"""Tests of pulpcore's own tasks, unchanged, in its worker, with FuturesDownloader in the factory.

Their source is an nginx behind a relay that breaks each connection.
"""

import os
import random
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from servers.files import CutAfter, ResetAfter, StallAfter
from servers.nginx import Nginx
from servers.relay import Relay

SIZES = [0, 1, 500, *[200_000] * 8, 1_500_000]
SECONDS = 120
# Of asyncio and asgiref.
KEPT = {"MainThread", "asyncio_0", "ThreadPoolExecutor-0_0"}
# pulpcore saves an artifact from a file, and leaves that open.
OPEN = "unclosed file <_io.BufferedReader"


def breaks(index: int) -> CutAfter | ResetAfter:
    """Break each connection, in either way: some within the head of a reply, most in a file."""
    size = 100 if index % 10 == 9 else random.Random(index).randrange(150_000, 400_000)
    return ResetAfter(size) if index % 2 else CutAfter(size)


class Source:
    """A site of an nginx behind a relay, with a manifest of files that no other test has.

    Attributes:
        files: The files, and what they are.
        folder: The folder that nginx serves.
        nginx: The nginx.
        relay: The relay.
    """

    def __init__(self, running: Callable[..., Any], folder: Path):
        self.files = {
            f"{number}": random.randbytes(size - 16) + uuid4().bytes if size > 16 else b"x" * size
            for number, size in enumerate(SIZES)
        }
        self.folder = folder / "site"
        self.folder.mkdir(parents=True)
        (folder / "nginx").mkdir()
        lines = []
        for name, content in self.files.items():
            (self.folder / name).write_bytes(content)
            lines.append(f"{name},{sha256(content).hexdigest()},{len(content)}\n")
        (self.folder / "PULP_MANIFEST").write_text("".join(lines))
        self.nginx: Nginx = running(Nginx, self.folder, folder / "nginx")
        self.relay: Relay = running(Relay, self.nginx.port, breaks)

    def resumed(self, name: str) -> int:
        """Return how many replies were the rest of a file."""
        return [each.status for each in self.nginx.logged(1) if each.target == f"/{name}"].count(
            206
        )


@pytest.fixture
def source(tmp_path: Path, running: Callable[..., Any]) -> Iterator[Callable[[], Source]]:
    """Return `source()`, which makes a Source."""
    return lambda: Source(running, tmp_path / uuid4().hex)


@pytest.fixture
def hooked(pulp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers use FuturesDownloader, and tell of what the garbage collector closes."""
    monkeypatch.setenv("PULP_SETTINGS", str(pulp / "hooked.py"))
    monkeypatch.setenv("PYTHONWARNINGS", "error::ResourceWarning")


def dispatch(task: Any, **arguments: Any) -> Any:
    """Put a task of pulpcore's into the queue."""
    from pulpcore.plugin.tasking import dispatch

    return dispatch(task, kwargs=arguments)


def completed(task: Any, log: Path) -> None:
    """Assert that a task is completed, and that it ended its threads and closed its resources."""
    said = log.read_text()
    task.refresh_from_db()
    assert task.state == "completed", f"{task.error}\n{said}"
    # The worker may have run a task of its own, too.
    names = ", ".join(re.findall(r"^threads at the end: (.*)$", said, re.MULTILINE)).split(", ")
    assert {re.sub(r"\d+", "0", name) for name in names} <= KEPT
    assert "MainThread" in names
    assert [text for text in re.findall("ResourceWarning: (.*)", said) if OPEN not in text] == []


def stored(repository: Any) -> dict[str, bytes]:
    """Return the files in the storage that the latest version of a repository has."""
    from pulpcore.plugin.models import ContentArtifact

    content = repository.latest_version().content
    rows = ContentArtifact.objects.filter(content__in=content, artifact__isnull=False)
    found = {}
    for row in rows.select_related("artifact"):
        with row.artifact.file.open() as file:
            found[row.relative_path] = file.read()
        assert sha256(found[row.relative_path]).hexdigest() == row.artifact.sha256
    return found


def test_sync_and_repair(hooked, domain, pulp, source, synced, work, log) -> None:
    """The sync and the repair of a worker get each file right, though each connection breaks.

    A repair of a version or of all replaces an artifact that was corrupted and one that is missing.
    """
    from pulp_file.app.tasks import synchronize

    from pulpcore.app.tasks.repository import repair_all_artifacts, repair_version
    from pulpcore.plugin.models import ContentArtifact

    site = source()
    remote, repository = synced(site.relay, max_retries=5)
    task = dispatch(synchronize, remote_pk=remote.pk, repository_pk=repository.pk, mirror=False)
    work()
    completed(task, log)
    assert stored(repository) == site.files
    assert site.resumed("11") >= 3
    assert site.relay.connections > 10

    version = repository.latest_version()
    paths = {
        row.relative_path: Path(row.artifact.file.path)
        for row in ContentArtifact.objects.filter(content__in=version.content)
    }
    # The second one repairs all artifacts of the domain.
    repairs = [(repair_version, {"repository_version_pk": version.pk}), (repair_all_artifacts, {})]
    for repair, arguments in repairs:
        paths["11"].write_bytes(b"corrupted")
        paths["5"].unlink()
        before = site.relay.connections
        task = dispatch(repair, verify_checksums=True, **arguments)
        work()
        completed(task, log)
        reports = {report.code: report.done for report in task.progress_reports.all()}
        assert reports == {"repair.missing": 1, "repair.corrupted": 1, "repair.repaired": 2}
        assert stored(repository) == site.files
        assert site.relay.connections > before + 3
    assert not list((pulp / "tmp").rglob("*"))


def test_alternate_content_source(hooked, domain, pulp, source, synced, work, log) -> None:
    """Files come from an alternate content source, and from the remote where it fails."""
    from pulp_file.app.models import FileAlternateContentSource
    from pulp_file.app.tasks import synchronize

    from pulpcore.plugin.models import AlternateContentSourcePath, RemoteArtifact

    site, other = source(), source()
    for name, content in site.files.items():
        (other.folder / name).write_bytes(content)
    (other.folder / "PULP_MANIFEST").write_bytes((site.folder / "PULP_MANIFEST").read_bytes())
    remote, repository = synced(site.relay, max_retries=5)
    alternate, hidden = synced(other.relay, max_retries=5, policy="on_demand")
    acs = FileAlternateContentSource.objects.create(name=uuid4().hex, remote=alternate)
    AlternateContentSourcePath.objects.create(
        alternate_content_source=acs, path="", repository=hidden
    )
    # This is what refreshing the source does.
    refresh = dispatch(synchronize, remote_pk=alternate.pk, repository_pk=hidden.pk, mirror=False)
    work()
    completed(refresh, log)
    assert RemoteArtifact.objects.filter(remote=alternate).count() == len(site.files)
    assert stored(hidden) == {}

    # One is gone since, and one is another.
    (other.folder / "3").unlink()
    (other.folder / "4").write_bytes(random.randbytes(SIZES[4]))
    task = dispatch(synchronize, remote_pk=remote.pk, repository_pk=repository.pk, mirror=False)
    work()
    completed(task, log)
    assert stored(repository) == site.files
    asked = {each.target for each in site.nginx.logged(3)}
    assert asked == {"/PULP_MANIFEST", "/3", "/4"}
    assert other.resumed("11") >= 3
    assert not list((pulp / "tmp").rglob("*"))


def test_canceled_sync(hooked, domain, pulp, site, synced, worker, log) -> None:
    """A sync that is canceled while its server is silent ends at once, and leaves no files."""
    from pulp_file.app.tasks import synchronize

    from pulpcore.plugin.tasking import cancel_task

    server = site({f"{number}": os.urandom(100_000) for number in range(20)})

    def fault(index, request):
        return None if request.path == "/PULP_MANIFEST" else StallAfter(50_000)

    server.faults = fault
    # Without the cancellation it would wait for the test's end.
    remote, repository = synced(server, download_concurrency=10, sock_read_timeout=1000.0)
    task = dispatch(synchronize, remote_pk=remote.pk, repository_pk=repository.pk, mirror=False)
    with worker() as process:
        server.until(lambda: server.count == 11, SECONDS)
        cancel_task(task.pk)
        assert process.wait(SECONDS) == 0, log.read_text()
    task.refresh_from_db()
    assert task.state == "canceled"
    assert repository.latest_version().number == 0
    assert not list((pulp / "tmp").rglob("*"))
    server.until(lambda: server.open_connections == 0)
