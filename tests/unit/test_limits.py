"""Tests of ``Limits``: its values, who shares it, and where wrong values are refused."""

import copy
import pickle

import pytest

from pulpcore.plugin.download.futures import (
    Batch,
    Download,
    DownloadFailed,
    HttpDownload,
    Limits,
    Settings,
    settings,
)


class Nop(Download):
    """A download that brings nothing."""

    def _send(self):
        pass


def test_defaults_and_positions():
    """Limits() limits nothing. Arguments may be positional."""
    limits = Limits()
    assert isinstance(limits, Settings)
    assert (limits.bandwidth, limits.per_host, limits.in_flight) == (None, None, None)
    limits.validate()
    assert repr(Limits(1.5, 2, 3)) == "Limits(bandwidth=1.5, per_host=2, in_flight=3)"
    assert Limits(1) != Limits(1)


@pytest.mark.parametrize("name", ["bandwidth", "per_host", "in_flight"])
@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan")])
def test_wrong_values(name, value):
    """A limit that isn't a number above 0 is refused by name, when it is checked."""
    limits = Limits(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name}: "):
        limits.validate()


@pytest.mark.parametrize("name", ["per_host", "in_flight"])
def test_whole_numbers(name):
    """Connections and bytes are whole numbers."""
    with pytest.raises(ValueError, match=rf"^{name}: .*whole"):
        Limits(**{name: 1.5}).validate()


def test_endless_bandwidth():
    """An infinite bandwidth is refused, as it would limit nothing."""
    with pytest.raises(ValueError, match=r"^bandwidth: "):
        Limits(bandwidth=float("inf")).validate()


def test_copies_share():
    """A clone and any copy have the very same object, since its limits hold for all together."""
    assert Download.limits is None
    download = HttpDownload("http://host/", None)
    limits = download.limits = Limits(per_host=1)
    assert download.clone().limits is limits
    assert copy.copy(limits) is limits
    assert copy.deepcopy([limits])[0] is limits


def test_pickle(monkeypatch):
    """In another process a Limits has the same values, its own state, and is the same each time."""
    monkeypatch.setattr(settings, "_FOREIGN_MOST", 2)
    limits = Limits(1.5, 2, 3)
    limits.shared["state"] = test_pickle.__globals__
    twin = pickle.loads(pickle.dumps(limits))
    assert repr(twin) == repr(limits)
    assert "state" not in twin.shared
    limits.per_host = 5
    assert pickle.loads(pickle.dumps(limits)) is twin
    assert twin.per_host == 5
    assert pickle.loads(pickle.dumps(twin)) is twin
    others = [pickle.loads(pickle.dumps(Limits())) for _ in range(2)]
    assert others[0] is not others[1]
    assert pickle.loads(pickle.dumps(limits)) is not twin, "only the latest are kept"


def test_wrong_values_fail_a_download():
    """A download with limits that can't work fails before it sends, and names the attribute."""
    download = Nop("", None)
    download.limits = Limits(per_host=0)
    with pytest.raises(DownloadFailed, match=r"limits\.per_host: must be"):
        download()
    download.limits = 5
    with pytest.raises(DownloadFailed, match="limits: must be a Limits, or None, not int"):
        download()


def test_wrong_values_of_a_batch():
    """A batch with limits that can't work fails each download; anything else is a TypeError."""
    with Batch([Nop("", None)], limits=Limits(in_flight=0)) as batch:
        (plan,) = batch()
    assert "limits.in_flight: must be" in str(plan.error)
    with pytest.raises(TypeError, match="limits: must be a Limits"):
        Batch([], limits=5)
    assert Batch([]).limits is None


def test_no_host():
    """A download without a host, such as one of a file, needs no place."""
    download = Nop("", None)
    download.limits = Limits(per_host=1)
    download()
