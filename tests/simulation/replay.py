"""Replays a recorded trace on the virtual clock: the same hosts, and the same policies."""

import csv
from bisect import bisect
from pathlib import Path

from pulpcore.plugin.download.futures.error import transient
from simulation.model import File, Load, Simulation, Site

TRACE = Path(__file__).with_name("trace.csv")


class Trace:
    """A recorded run.

    Attributes:
        seconds: How long it took.
        lost: How many files failed.
        workers: The number of workers.
        requests: The number of requests.
    """

    def __init__(self, path=TRACE):
        """Read a trace."""
        with path.open() as file:
            first, *rows = csv.DictReader(file)
        self.seconds, self.lost = float(first["seconds"]), int(first["end"].split()[0])
        self.workers = len({row["worker"] for row in rows})
        self.requests = len(rows)
        self._hosts = {int(row["number"]): row["host"] for row in rows}
        self._sites = {name: Site(f"http://host{name}/", 0, 1) for name in self._hosts.values()}
        # What each host has answered when, by its URL: in the order of the time.
        self._answers = {site.name: [] for site in self._sites.values()}
        for row in rows:
            answer = float(row["began"]), float(row["seconds"]), row["end"]
            self._answers[self._sites[row["host"]].name].append(answer)

    def files(self):
        """Yield the files in the order of the list."""
        for number in sorted(self._hosts):
            yield File(self._sites[self._hosts[number]], 0)

    def ask(self, file, now):
        """Return how long a request takes, and its error: as its host has answered at that time."""
        answers = self._answers[file.url]
        _, seconds, end = answers[max(bisect(answers, (now,)) - 1, 0)]
        if end == "good":
            return seconds, None
        error = transient("recorded")
        error.refused = end == "refused"
        return seconds, error

    def replay(self):
        """Simulate the run, and return what came of it."""
        return Simulation(Load(workers=self.workers), self.files(), self.ask).run()
