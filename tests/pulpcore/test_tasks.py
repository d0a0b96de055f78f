"""The documentation's example of a sync, as tasks that a worker of Pulp's runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from servers.files import StallAfter

SECONDS = 120
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
PROGRAM = Path(sys.executable).with_name("pulpcore-worker")


@pytest.fixture(autouse=True)
def request_id(pulp) -> None:
    """The id that Pulp gives each request, and a task takes from the one that dispatches it."""
    from django_guid import set_guid

    set_guid(uuid4().hex)


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that runs the tasks that wait, and ends; killed at the end of the `with`."""
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [PROGRAM, "--burst"], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def work(log: Path) -> None:
    """Have the tasks that wait run."""
    with worker(log) as process:
        assert process.wait(SECONDS) == 0, log.read_text()


def test_task(example, domain, pulp, site, synced, tmp_path) -> None:
    """A task of another domain saves all in it, and tells its progress and what failed."""
    from pulp_file.app.models import FileContent

    from pulpcore.plugin.models import Artifact, ContentArtifact, RemoteArtifact

    files = {f"{number}": os.urandom(1000) for number in range(100)}
    server = site({**files, "missing": None, "wrong": b"right"})
    server.files["/wrong"] = b"wrong"
    remote, repository = synced(server, download_concurrency=16)
    models = (Artifact, FileContent, RemoteArtifact)
    before = [set(model.objects.values_list("pk", flat=True)) for model in models]
    task = example.start(remote, repository)
    assert task.pulp_domain == domain
    work(tmp_path / "log")

    task.refresh_from_db()
    assert task.state == "completed", task.error
    missing, wrong = sorted(task.result["failures"])
    assert server.url("/missing") in missing
    assert "404" in missing
    assert server.url("/wrong") in wrong
    report = task.progress_reports.get()
    assert (report.state, report.done, report.total) == ("completed", 100, 102)
    version = repository.latest_version()
    assert version.content.count() == 100
    for model, known in zip(models, before, strict=True):
        made = model.objects.exclude(pk__in=known)
        assert made.count() == 100
        assert {row.pulp_domain_id for row in made} == {domain.pk}
    for content_artifact in ContentArtifact.objects.filter(content__in=version.content):
        with content_artifact.artifact.file.open() as file:
            assert file.read() == files[content_artifact.relative_path]
    assert not list((pulp / "tmp").rglob("*"))


def test_failed_task(example, pulp, site, synced, tmp_path) -> None:
    """A task that fails says why, by an error that Pulp shows to its users, without a secret."""
    remote, repository = synced(site({}, user=("me", "secret")), username="me", password="guessed")
    task = example.start(remote, repository)
    work(tmp_path / "log")

    task.refresh_from_db()
    assert task.state == "failed"
    assert remote.url in task.error["description"]
    assert "401" in task.error["description"]
    log = (tmp_path / "log").read_text()
    assert "guessed" not in str(task.error) + log
    # What isn't one of Pulp's errors, it warns of and will hide.
    assert "sanitized" not in log


def test_canceled_task(example, pulp, site, synced, tmp_path) -> None:
    """A task that is canceled while servers are silent ends at once, and leaves nothing."""
    from pulpcore.plugin.models import Task
    from pulpcore.plugin.tasking import cancel_task

    files = {f"{number}": os.urandom(100_000) for number in range(20)}
    server = site(files)

    def fault(index, request):
        return None if request.path == "/PULP_MANIFEST" else StallAfter(50_000)

    server.faults = fault
    # None of these would come to an end by itself in time.
    remote, repository = synced(server, download_concurrency=10, sock_read_timeout=10.0 * SECONDS)
    task = example.start(remote, repository)
    with worker(tmp_path / "log") as process:
        server.until(lambda: server.count == 11, SECONDS)
        cancel_task(task.pk)
        assert process.wait(SECONDS) == 0, (tmp_path / "log").read_text()

    task.refresh_from_db()
    assert task.state == "canceled"
    assert Task.objects.filter(state__in=("running", "waiting")).count() == 0
    assert repository.latest_version().number == 0
    assert not list((pulp / "tmp").rglob("*"))


def test_script(pulp, site, synced) -> None:
    """A script outside of any task gives the content that waits for its files these files."""
    from pulp_file.app.models import FileContent

    from pulpcore.plugin.models import ContentArtifact, RemoteArtifact

    same = os.urandom(1000)
    files = {**{f"{number}": os.urandom(1000) for number in range(50)}, "a": same, "b": same}
    server = site(files)
    remote, _ = synced(server)
    for name in [*files, "missing"]:
        content = FileContent.objects.create(relative_path=name, digest=uuid4().hex)
        content_artifact = ContentArtifact.objects.create(content=content, relative_path=name)
        RemoteArtifact.objects.create(
            content_artifact=content_artifact, remote=remote, url=server.url(f"/{name}")
        )

    done = subprocess.run(
        [sys.executable, EXAMPLES / "pulp_fetch.py", remote.name],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert server.url("/missing") in done.stdout
    assert len(done.stdout.splitlines()) == 1
    stored = {}
    for content_artifact in ContentArtifact.objects.filter(remoteartifact__remote=remote):
        if content_artifact.artifact is not None:
            with content_artifact.artifact.file.open() as file:
                stored[content_artifact.relative_path] = file.read()
    assert stored == files
    assert not list((pulp / "tmp").rglob("*"))
