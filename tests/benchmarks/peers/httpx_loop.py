"""httpx in a ThreadPoolExecutor, with one Client for all threads.

This was faster than a Client for each thread and than an AsyncClient.
"""

from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks.job import File, Job, Sink


def run(job: Job) -> None:
    """Do a job."""
    limits = httpx.Limits(max_connections=job.threads, max_keepalive_connections=job.threads)
    with (
        httpx.Client(limits=limits, timeout=30) as client,
        ThreadPoolExecutor(job.threads) as pool,
    ):

        def fetch(file: File) -> None:
            with client.stream("GET", job.url(file)) as reply:
                reply.raise_for_status()
                sink = Sink(job, file)
                for chunk in reply.iter_raw():
                    sink.write(chunk)
                sink.close()

        for _ in pool.map(fetch, job.files):
            pass
