"""aiohttp in a minimal loop that writes and hashes by itself."""

import asyncio

import aiohttp

from benchmarks.job import File, Job, Sink


def run(job: Job) -> None:
    """Do a job."""
    asyncio.run(_run(job))


async def _run(job: Job) -> None:
    files = iter(job.files)
    connector = aiohttp.TCPConnector(limit=job.threads)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:

        async def fetch(file: File) -> None:
            async with session.get(job.url(file)) as reply:
                reply.raise_for_status()
                sink = Sink(job, file)
                async for chunk in reply.content.iter_any():
                    sink.write(chunk)
                sink.close()

        async def work() -> None:
            for file in files:
                await fetch(file)

        for _ in range(job.threads):
            tasks.create_task(work())
