"""An async task: download the files of a remote that Pulp has not downloaded yet."""

import os

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction

from pulpcore.plugin.download.futures import Batch, DownloadError, DownloadMonitor, Factory
from pulpcore.plugin.models import Artifact, ProgressReport, Remote, RemoteArtifact
from pulpcore.plugin.tasking import dispatch


def start(remote):
    """Dispatch the task to a worker."""
    return dispatch(fetch, kwargs={"remote_pk": str(remote.pk)}, exclusive_resources=[remote])


async def fetch(remote_pk):
    """Download each file of the remote that Pulp doesn't have yet."""
    factory = Factory(await Remote.objects.aget(pk=remote_pk))
    failures = []
    report = ProgressReport(message="Downloading files", code="sync.downloading.files")
    async with report, Batch(downloads(factory), concurrent=10) as batch:
        async for plan in batch():
            try:
                await sync_to_async(save)(plan.result())
            except DownloadError as error:
                failures.append(str(error))
            else:
                await report.aincrement()
    return {"failures": failures}


async def downloads(factory):
    """Create a download for each missing file."""
    wanted = RemoteArtifact.objects.filter(
        remote=factory.importer, content_artifact__artifact__isnull=True
    ).select_related("content_artifact")
    async for remote_artifact in wanted.aiterator():
        path = os.path.abspath(str(remote_artifact.pk))
        download = factory.build(remote_artifact.url, path, remote_artifact)
        download.attachment = remote_artifact.content_artifact, DownloadMonitor(download)
        yield download


def save(download):
    """Save the downloaded file as the artifact of its content."""
    content_artifact, monitor = download.attachment
    artifact = Artifact(file=download.writer.path, **monitor.facts())
    try:
        with transaction.atomic():
            artifact.save()
    except IntegrityError:
        artifact = Artifact.objects.get(artifact.q())
    content_artifact.artifact = artifact
    content_artifact.save()
