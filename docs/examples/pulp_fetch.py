"""A script: download the files of a remote that Pulp has not downloaded yet.

The argument is the name of the remote.
"""

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
    """Create a download for each file of the remote that Pulp doesn't have yet."""
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


with tempfile.TemporaryDirectory(dir=settings.WORKING_DIRECTORY) as folder:
    os.chdir(folder)
    with Batch(downloads(Remote.objects.get(name=sys.argv[1])), concurrent=10) as batch:
        for plan in batch():
            try:
                save(plan.result())
            except DownloadError as error:
                print(error)
