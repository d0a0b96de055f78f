"""The sync task of a plugin whose remotes publish a list of files with digests and sizes."""

import os
from urllib.parse import quote, urljoin

from django.db import IntegrityError, transaction
from pulp_file.app.models import FileContent, FileRemote, FileRepository
from pulp_file.manifest import Manifest

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadError,
    DownloadMonitor,
    Factory,
)
from pulpcore.plugin.exceptions import SyncError
from pulpcore.plugin.models import Artifact, ContentArtifact, ProgressReport, RemoteArtifact
from pulpcore.plugin.tasking import dispatch
from pulpcore.plugin.util import get_domain


def start(remote, repository):
    """Dispatch the task to a worker, as the plugin's view does."""
    return dispatch(
        synchronize,
        kwargs={"remote_pk": str(remote.pk), "repository_pk": str(repository.pk)},
        exclusive_resources=[repository],
        shared_resources=[remote],
    )


def synchronize(remote_pk, repository_pk):
    """Create a repository version with all content that the remote publishes."""
    remote = FileRemote.objects.get(pk=remote_pk)
    repository = FileRepository.objects.get(pk=repository_pk)
    factory = Factory(remote)
    contents, missing = sort_out(read_manifest(factory))
    failures = []
    with (
        ProgressReport(
            message="Downloading files", code="sync.downloading.files", total=len(missing)
        ) as report,
        Batch(
            downloads(factory, missing),
            concurrent=remote.download_concurrency or remote.DEFAULT_DOWNLOAD_CONCURRENCY,
        ) as batch,
    ):
        for plan in batch():
            try:
                download = plan.result()
            except DownloadError as error:
                failures.append(str(error))
            else:
                contents.append(save(download).pk)
                report.increment()
    with repository.new_version() as version:
        version.add_content(FileContent.objects.filter(pk__in=contents))
    return {"failures": failures}


def read_manifest(factory):
    """Download the list of files into memory."""
    download = factory.build(factory.importer.url, "manifest")
    download.writer = BufferWriter(limit=64 * 1024 * 1024)
    try:
        download()
    except DownloadError as error:
        raise SyncError(str(error)) from error
    return list(Manifest.parse(download.writer.content()))


def sort_out(entries):
    """Return the keys of the content that Pulp already has, and the entries that are missing."""
    there = FileContent.objects.filter(
        pulp_domain=get_domain(),
        digest__in=[entry.digest for entry in entries],
        contentartifact__artifact__isnull=False,
    )
    there.touch()
    pks = {(content.relative_path, content.digest): content.pk for content in there.iterator()}
    present, missing = [], []
    for entry in entries:
        pk = pks.get((entry.relative_path, entry.digest))
        if pk is None:
            missing.append(entry)
        else:
            present.append(pk)
    return present, missing


def downloads(factory, entries):
    """Create a download for each file, with unsaved models attached."""
    for number, entry in enumerate(entries):
        remote_artifact = RemoteArtifact(
            remote=factory.importer,
            url=urljoin(factory.importer.url, quote(entry.relative_path)),
            size=entry.size,
            sha256=entry.digest,
        )
        content = FileContent(relative_path=entry.relative_path, digest=entry.digest)
        path = os.path.abspath(str(number))
        download = factory.build(remote_artifact.url, path, remote_artifact)
        download.attachment = content, remote_artifact, DownloadMonitor(download)
        yield download


def save(download):
    """Save the downloaded file and its models, and return the content."""
    content, remote_artifact, monitor = download.attachment
    with transaction.atomic():
        artifact = saved(Artifact(file=download.writer.path, **monitor.facts()))
        content = saved(content)
        content_artifact, _ = ContentArtifact.objects.update_or_create(
            content=content,
            relative_path=content.relative_path,
            defaults={"artifact": artifact},
        )
        RemoteArtifact.objects.update_or_create(
            content_artifact=content_artifact,
            remote=remote_artifact.remote,
            defaults={
                "url": remote_artifact.url,
                "size": remote_artifact.size,
                "sha256": remote_artifact.sha256,
            },
        )
    return content


def saved(model):
    """Save an artifact or content, and return it; return the existing one if there is one."""
    try:
        with transaction.atomic():
            model.save()
    except IntegrityError:
        model = type(model).objects.get(model.q())
        model.touch()
    return model
