"""requests in a ThreadPoolExecutor, with a session for each thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.job import File, Job, Sink

CHUNK = 128 * 1024


def run(job: Job) -> None:
    """Do a job."""
    local = threading.local()

    def fetch(file: File) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        with local.session.get(job.url(file), stream=True, timeout=(10, 30)) as reply:
            reply.raise_for_status()
            sink = Sink(job, file)
            for chunk in reply.iter_content(CHUNK):
                sink.write(chunk)
            sink.close()

    with ThreadPoolExecutor(job.threads) as pool:
        for _ in pool.map(fetch, job.files):
            pass
