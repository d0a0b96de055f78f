"""A Django app that puts FuturesDownloader into the remotes of a process of Pulp's.

The worker and the content app of the tests load it by their settings; nothing else of them changes.
"""

import sys
import threading
from multiprocessing import util
from typing import Any

from django.apps import AppConfig


class Hook(AppConfig):
    name = "pulp_hook"

    def ready(self) -> None:
        """Replace the factory of all remotes.

        Not only of pulp_file's: pulpcore's stage for alternate content sources asks the base class.
        """
        from pulp_downloader import Downloads
        from pulp_file.app.models import FileContent, FileRemote

        from pulpcore.plugin.models import Remote

        Remote.download_factory = Downloads.download_factory
        # Plugins define these for pull-through caching, which pulp_file doesn't have.
        FileRemote.get_remote_artifact_content_type = lambda remote, path=None: FileContent
        FileContent.init_from_artifact_and_relative_path = new_content
        util.register_after_fork(self, watch)


def new_content(artifact: Any, path: str) -> Any:
    """Return new content that has this artifact."""
    from pulp_file.app.models import FileContent

    return FileContent(relative_path=path, digest=artifact.sha256)


def watch(_: Hook) -> None:
    """Have the process of a task tell at its end which threads it has."""
    util.Finalize(None, report, exitpriority=0)


def report() -> None:
    """Write the names of the threads to the log."""
    for each in threading.enumerate():
        # It ends when it has been idle for a moment.
        if each.name.startswith("download-digest"):
            each.join(10)
    names = [each.name for each in threading.enumerate()]
    sys.stderr.write(f"threads at the end: {', '.join(names)}\n")
    sys.stderr.flush()
