"""Tests of the documentation's sync example as tasks of a real Pulp worker."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from servers.files import StallAfter

SECONDS = 120
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def test_task(example, domain, pulp, site, synced, pem, tls, work) -> None:
    """A sync task in its own domain saves all objects there and reports progress and failures.

    Its server has a private CA and demands a client certificate.
    """
    from pulp_file.app.models import FileContent

    from pulpcore.plugin.models import Artifact, ContentArtifact, RemoteArtifact

    files = {f"{number}": os.urandom(1000) for number in range(100)}
    server = site({**files, "missing": None, "wrong": b"right"}, tls=tls.server(client_ca=tls.ca))
    server.files["/wrong"] = b"wrong"
    remote, repository = synced(server, download_concurrency=16, **pem)
    models = (Artifact, FileContent, RemoteArtifact)
    before = [set(model.objects.values_list("pk", flat=True)) for model in models]
    task = example.start(remote, repository)
    assert task.pulp_domain == domain
    work()

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


def test_failed_task(example, site, synced, work, log) -> None:
    """A failed sync task gives the reason in an error that Pulp shows to users, with no secret."""
    remote, repository = synced(site({}, user=("me", "secret")), username="me", password="guessed")
    task = example.start(remote, repository)
    work()

    task.refresh_from_db()
    assert task.state == "failed"
    assert remote.url in task.error["description"]
    assert "401" in task.error["description"]
    said = log.read_text()
    assert "guessed" not in str(task.error) + said
    # Pulp warns of any other exception class and will hide it.
    assert "sanitized" not in said


def test_canceled_task(example, pulp, site, synced, worker, log) -> None:
    """A sync task canceled while servers are silent ends at once and leaves no files behind."""
    from pulpcore.plugin.models import Task
    from pulpcore.plugin.tasking import cancel_task

    files = {f"{number}": os.urandom(100_000) for number in range(20)}
    server = site(files)

    def fault(index, request):
        return None if request.path == "/PULP_MANIFEST" else StallAfter(50_000)

    server.faults = fault
    # None of these would end by itself in time.
    remote, repository = synced(server, download_concurrency=10, sock_read_timeout=10.0 * SECONDS)
    task = example.start(remote, repository)
    with worker() as process:
        server.until(lambda: server.count == 11, SECONDS)
        cancel_task(task.pk)
        assert process.wait(SECONDS) == 0, log.read_text()

    task.refresh_from_db()
    assert task.state == "canceled"
    assert Task.objects.filter(state__in=("running", "waiting")).count() == 0
    assert repository.latest_version().number == 0
    assert not list((pulp / "tmp").rglob("*"))


def test_script(pulp, site, synced) -> None:
    """Outside of any task, a script can download the files of content that lacks its artifacts."""
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
