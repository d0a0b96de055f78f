"""Tests of batches in the async code of Pulp's tasks, with its models and domains."""

import os
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function as a Pulp worker does: its queries run in this thread."""
    from asgiref.sync import async_to_sync

    return async_to_sync(main)()


def test_task(async_example, domain, pulp, site, synced, pem, tls, work) -> None:
    """An async Pulp task in its own domain downloads the available files and reports the others."""
    from pulp_file.app.models import FileContent

    from pulpcore.plugin.models import Artifact, ContentArtifact, RemoteArtifact

    same = os.urandom(1000)
    files = {**{f"{number}": os.urandom(1000) for number in range(60)}, "a": same, "b": same}
    server = site(files, tls=tls.server(client_ca=tls.ca))
    remote, _ = synced(server, **pem)
    for name in [*files, "missing"]:
        content = FileContent.objects.create(relative_path=name, digest=uuid4().hex)
        content_artifact = ContentArtifact.objects.create(content=content, relative_path=name)
        RemoteArtifact.objects.create(
            content_artifact=content_artifact, remote=remote, url=server.url(f"/{name}")
        )
    before = set(Artifact.objects.values_list("pk", flat=True))
    task = async_example.start(remote)
    work()

    task.refresh_from_db()
    assert task.state == "completed", task.error
    (missing,) = task.result["failures"]
    assert server.url("/missing") in missing
    report = task.progress_reports.get()
    assert (report.state, report.done) == ("completed", 62)
    made = Artifact.objects.exclude(pk__in=before)
    assert made.count() == 61
    assert {artifact.pulp_domain_id for artifact in made} == {domain.pk}
    found = {}
    for content_artifact in ContentArtifact.objects.filter(
        content__pulp_domain=domain, artifact__isnull=False
    ):
        with content_artifact.artifact.file.open() as file:
            found[content_artifact.relative_path] = file.read()
    assert found == files
    assert not list((pulp / "tmp").rglob("*"))


def test_domain(example, domain, task, site, synced) -> None:
    """Models made in an async generator get the task's domain, which handlers see, too."""
    from asgiref.sync import sync_to_async
    from pulp_file.app.models import FileContent
    from pulp_file.manifest import Manifest

    from pulpcore.plugin.download.futures import Batch, Event, Factory
    from pulpcore.plugin.models import Artifact
    from pulpcore.plugin.util import get_domain_pk

    server = site({f"{number}": os.urandom(100) for number in range(100)})
    remote, _ = synced(server)
    entries = list(Manifest.parse(server.files["/PULP_MANIFEST"].decode()))
    seen = []

    async def downloads():
        for download in example.downloads(Factory(remote), entries):
            # The event loop keeps running, and with it its other tasks.
            assert await FileContent.objects.filter(digest=uuid4().hex).afirst() is None
            content, remote_artifact, _ = download.attachment
            seen.extend((content.pulp_domain_id, content._pulp_domain_id))
            seen.extend((remote_artifact.pulp_domain_id, Artifact().pulp_domain_id))
            download.register(Event.FETCHED, lambda _: seen.append(get_domain_pk()))
            yield download

    async def main():
        async with Batch(downloads(), concurrent=16, backlog=32) as batch:
            return [await sync_to_async(example.save)(plan.result()) async for plan in batch()]

    contents = run(main)
    assert len({content.pk for content in contents}) == 100
    assert {content.pulp_domain_id for content in contents} == {domain.pk}
    assert len(seen) >= 5 * 100
    assert set(seen) == {domain.pk}


def test_guard(example, task, site, synced) -> None:
    """Django refuses a query in a synchronous generator within async code, and nothing hangs."""
    from django.core.exceptions import SynchronousOnlyOperation
    from pulp_file.app.models import FileContent
    from pulp_file.manifest import Manifest

    from pulpcore.plugin.download.futures import Batch, Factory

    server = site({f"{number}": b"" for number in range(3)})
    remote, _ = synced(server)
    entries = list(Manifest.parse(server.files["/PULP_MANIFEST"].decode()))

    def downloads():
        yield from example.downloads(Factory(remote), entries)
        yield FileContent.objects.first()

    async def main():
        async with Batch(downloads()) as batch:
            plans = aiter(batch())
            # The plans that were already started come first.
            done = {(await anext(plans)).result().url for _ in range(3)}
            with pytest.raises(SynchronousOnlyOperation):
                await anext(plans)
            assert [plan async for plan in plans] == []
        assert batch.is_shutdown
        return done

    assert len(run(main)) == 3
