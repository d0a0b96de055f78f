"""aiohttp, the way pulpcore 3 downloads.

What its ``pulpcore/download/base.py`` and ``http.py`` (3.123) do for each file: a semaphore; a read
of up to 1 MiB; a NamedTemporaryFile that is kept; the digests of ``Artifact.DIGEST_FIELDS``, each
updated in a thread pool, for which the loop waits; flush, fsync and close; digest and size checked.
Left out, in its favour: Django, the wrapper that tries again, the artifact that is saved.
"""

import asyncio
import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait

import aiohttp

from benchmarks.job import File, Job

FIELDS = ("sha224", "sha256", "sha384", "sha512")
CHUNK = 1024 * 1024


def run(job: Job) -> None:
    """Do a job."""
    asyncio.run(_run(job))


async def _run(job: Job) -> None:
    semaphore = asyncio.Semaphore(job.threads)
    with ThreadPoolExecutor() as pool:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:

            async def fetch(file: File) -> None:
                async with semaphore, session.get(job.url(file)) as reply:
                    reply.raise_for_status()
                    await _handle(job, file, reply, pool)

            for file in job.files:
                tasks.create_task(fetch(file))


async def _handle(
    job: Job, file: File, reply: aiohttp.ClientResponse, pool: ThreadPoolExecutor
) -> None:
    digests = {name: hashlib.new(name) for name in FIELDS}
    size = 0
    with tempfile.NamedTemporaryFile(dir=job.target, suffix=f"-{file.name}", delete=False) as out:
        while chunk := await reply.content.read(CHUNK):
            out.write(chunk)
            wait([pool.submit(digest.update, chunk) for digest in digests.values()])
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    file.check(size, digests["sha256"].hexdigest())
    # The digests of its artifact.
    _ = {name: digest.hexdigest() for name, digest in digests.items()}
