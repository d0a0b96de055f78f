"""Tests of how many connections are used for one file, on a clock of their own."""

from pulpcore.plugin.download.futures.engine.ramp import Progress, Ramp


class Trial:
    """A policy, its clock, and what has come."""

    def __init__(self, most: int = 4, trip: float = 0.0) -> None:
        """Begin at the time 0."""
        self.ramp = Ramp(most, 0.0, trip, 8_000_000)
        self.now = self.received = self.waited = 0.0

    def run(self, seconds: float, speed: float, active: int, waits: float = 1.0) -> int:
        """Let time pass at a speed, and return how many connections are wanted."""
        for _ in range(round(seconds * 100)):
            self.now += 0.01
            self.waited += 0.01 * waits
            self.received += speed * 0.01
            self.ramp.update(self.now, Progress(int(self.received), self.waited), active)
        return self.ramp.wanted


def test_doubles_while_it_grows() -> None:
    """Each success allows a larger step."""
    trial = Trial(most=7)
    assert trial.run(0.5, 10e6, 1) == 2
    assert trial.run(0.5, 20e6, 2) == 4
    assert trial.run(0.5, 40e6, 4) == 7
    assert trial.run(9, 70e6, 7) == 7


def test_pauses_after_a_vain_trial() -> None:
    """A trial without success is repeated after a pause, which doubles."""
    trial = Trial()
    assert trial.run(0.45, 10e6, 1) == 2
    assert trial.run(0.6, 10e6, 2) == 1
    assert trial.run(1.5, 10e6, 1) == 1
    assert trial.run(0.8, 10e6, 1) == 2
    assert trial.run(0.6, 10e6, 2) == 1
    assert trial.run(3.5, 10e6, 1) == 1


def test_waits_for_the_new_connection() -> None:
    """The speed is measured only when the new connection has brought bytes."""
    trial = Trial()
    assert trial.run(0.45, 10e6, 1) == 2
    assert trial.run(20, 10e6, 1) == 2


def test_reader_is_the_limit() -> None:
    """No connections are added if the reader is busy, for example with a slow disk."""
    trial = Trial()
    assert trial.run(10, 10e6, 1, waits=0.1) == 1
    assert trial.run(0.5, 10e6, 1) == 2
    assert trial.run(0.3, 10e6, 2, waits=0.1) == 1


def test_slow_start_has_patience() -> None:
    """A new connection gets time to reach its full speed before it is judged."""
    trial = Trial(trip=0.1)
    assert trial.run(0.9, 10e6, 1) == 2
    assert trial.run(0.42, 9.5e6, 2) == 2
    assert trial.run(0.8, 10.4e6, 2) == 2
    assert trial.run(0.8, 10.4e6, 2) == 1
    assert Trial().run(0.25, 10e6, 1) == 1


def test_refused() -> None:
    """If the server refuses a connection, the next one is tried a minute later."""
    trial = Trial()
    assert trial.run(0.45, 10e6, 1) == 2
    trial.ramp.refuse(trial.now, 1)
    assert trial.run(59, 10e6, 1) == 1
    assert trial.run(2, 10e6, 1) == 2
    trial.run(0.5, 20e6, 2)
    trial.ramp.refuse(trial.now, 3)
    assert trial.run(1, 20e6, 2) == 2


def test_given_up() -> None:
    """If all other connections are much slower than the first one, only the first one stays."""
    trial = Trial()
    trial.run(0.45, 10e6, 1)
    trial.run(0.25, 20e6, 2)
    trial.ramp.give_up(trial.now)
    assert trial.ramp.wanted == 1


def test_slower_than_one() -> None:
    """If several connections are slower than one, they are given up."""
    trial = Trial(most=2)
    trial.run(0.45, 10e6, 1)
    assert trial.run(0.5, 20e6, 2) == 2
    assert trial.run(0.5, 8e6, 2) == 1


def test_long_distance() -> None:
    """If a part takes one round trip, several connections are needed to beat one."""
    assert Trial(most=16, trip=1.0).run(9, 40e6, 1) == 7
    assert Trial(most=4, trip=1.0).run(20, 40e6, 1) == 1
