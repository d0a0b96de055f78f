"""pycurl's multi interface in one loop that writes and hashes by itself."""

import pycurl

from benchmarks.job import File, Job, Sink


def run(job: Job) -> None:
    """Do a job."""
    files = iter(job.files)
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, job.threads)
    sinks: dict[pycurl.Curl, Sink] = {}

    def begin(handle: pycurl.Curl, file: File) -> None:
        sink = sinks[handle] = Sink(job, file)
        handle.setopt(pycurl.URL, job.url(file))
        handle.setopt(pycurl.WRITEFUNCTION, sink.write)
        multi.add_handle(handle)

    for _, file in zip(range(job.threads), files, strict=False):
        handle = pycurl.Curl()
        handle.setopt(pycurl.FAILONERROR, 1)
        begin(handle, file)
    while sinks:
        multi.perform()
        _, done, failed = multi.info_read()
        if failed:
            raise ValueError(f"pycurl failed: {failed[0][2]}")
        for handle in done:
            multi.remove_handle(handle)
            sinks.pop(handle).close()
            file = next(files, None)
            if file is not None:
                begin(handle, file)
        if not done:
            # Not before what was just added has sent its request.
            multi.select(1.0)
    multi.close()
