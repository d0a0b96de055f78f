"""A script: downloads the files that Pulp knows of, and has left for later, by a remote's name."""

import os
import sys
import tempfile

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.db import IntegrityError, transaction  # noqa: E402

from pulpcore.plugin.download.futures import (  # noqa: E402
    Batch,
    DownloadError,
    DownloadMonitor,
    Factory,
)
from pulpcore.plugin.models import Artifact, Remote, RemoteArtifact  # noqa: E402


def downloads(remote):
    """Make a download for each file that the remote has, and we have not."""
    factory = Factory(remote)
    wanted = RemoteArtifact.objects.filter(
        remote=remote, content_artifact__artifact__isnull=True
    ).select_related("content_artifact")
    for remote_artifact in wanted.iterator():
        path = os.path.abspath(str(remote_artifact.pk))
        download = factory.build(remote_artifact.url, path, remote_artifact)
        download.attachment = remote_artifact.content_artifact, DownloadMonitor(download)
        yield download


def save(download):
    """Save what was downloaded as the file of its content."""
    content_artifact, monitor = download.attachment
    artifact = Artifact(file=download.writer.path, **monitor.facts())
    try:
        with transaction.atomic():
            artifact.save()
    except IntegrityError:
        artifact = Artifact.objects.get(artifact.q())
    content_artifact.artifact = artifact
    content_artifact.save()


with tempfile.TemporaryDirectory(dir=settings.WORKING_DIRECTORY) as folder:
    os.chdir(folder)
    with Batch(downloads(Remote.objects.get(name=sys.argv[1])), concurrent=10) as batch:
        for plan in batch():
            try:
                save(plan.result())
            except DownloadError as error:
                print(error)
