"""Tests of validations: what they expect, how they fail and how they are reset."""

import copy
import hashlib
import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpcore.plugin.download.futures import validation as module
from pulpcore.plugin.download.futures.storage.digest import new_hash
from pulpcore.plugin.download.futures.validation import (
    DigestMismatch,
    DigestValidation,
    SizeMismatch,
    SizeValidation,
    Validation,
    ValidationError,
    can_reset,
)

ALGORITHMS = ["sha512", "sha384", "sha256", "sha224", "sha1", "md5"]
EMPTY = {name: hashlib.new(name, usedforsecurity=False).hexdigest() for name in ALGORITHMS}
CONTENT = b"content"
BUFFERS = [b"co", b"", b"ntent"]


def digest(name, content=CONTENT):
    """Return the digest of a content (hex)."""
    return hashlib.new(name, content, usedforsecurity=False).hexdigest()


def feed(validation, buffers=BUFFERS):
    """Pass the content to a validation and return it."""
    for buffer in buffers:
        validation.update(buffer)
    return validation


class Refuses(Validation):
    """A plugin's validation that always fails."""

    def apply(self):
        """Fail."""
        raise ValidationError(reason="refused")


# Validation


def test_base():
    """The base class Validation accepts any content and can be reset."""
    validation = feed(Validation())
    assert validation.enforced is True
    validation.apply()
    validation()
    validation.reset()


def test_custom_enforced():
    """Calling an enforced validation raises what its apply() raises."""
    with pytest.raises(ValidationError, match="refused"):
        Refuses()()


def test_custom_not_enforced(caplog):
    """A validation that isn't enforced logs its failure as a warning instead of raising it."""
    with caplog.at_level(logging.WARNING, module.__name__):
        Refuses(enforced=False)()
    (record,) = caplog.records
    assert (record.levelname, "refused" in record.getMessage()) == ("WARNING", True)


def test_bug_in_a_validation():
    """An exception other than ValidationError is raised, whether enforced or not."""

    class Broken(Validation):
        def apply(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Broken(enforced=False)()


# SizeValidation


@pytest.mark.parametrize(
    ("expected", "buffers"), [(0, []), (0, [b""]), (7, BUFFERS), (7.0, BUFFERS)]
)
def test_size(expected, buffers):
    """SizeValidation accepts content of the right size."""
    validation = feed(SizeValidation(expected), buffers)
    validation()
    validation.apply()
    assert validation.actual == validation.expected == expected
    assert isinstance(validation.expected, int)


@pytest.mark.parametrize("call", [SizeValidation.__call__, SizeValidation.apply])
def test_size_too_small(call):
    """SizeValidation fails at the end of too short content, with both sizes in the error."""
    validation = feed(SizeValidation(8))
    with pytest.raises(SizeMismatch, match="should be 8 bytes, but is 7") as caught:
        call(validation)
    assert (caught.value.expected, caught.value.actual) == (8, 7)


def test_size_too_big():
    """SizeValidation fails with the buffer that exceeds the size, and not before."""
    validation = feed(SizeValidation(7))
    validation.update(b"")
    with pytest.raises(SizeMismatch, match="should be 7 bytes, but there are more") as caught:
        validation.update(b"x")
    assert (caught.value.expected, caught.value.actual) == (7, 8)
    with pytest.raises(SizeMismatch):
        validation.apply()


def test_size_not_enforced(caplog):
    """A SizeValidation that isn't enforced lets all content pass, with one warning."""
    validation = feed(SizeValidation(3, enforced=False))
    with caplog.at_level(logging.WARNING, module.__name__):
        validation()
    assert validation.actual == 7
    (record,) = caplog.records
    assert "should be 3 bytes, but is 7" in record.getMessage()


def test_size_reset():
    """SizeValidation counts from 0 after reset(), also after a failure."""
    validation = SizeValidation(7)
    with pytest.raises(SizeMismatch):
        feed(validation, [b"too much!"])
    validation.reset()
    assert validation.actual == 0
    feed(validation)()


@pytest.mark.parametrize("size", [-1, 1.5, True, "7", "x", float("nan"), float("inf"), "", b"7"])
def test_size_that_is_none(size):
    """SizeValidation refuses a size that isn't a non-negative integer when it is made."""
    with pytest.raises(ValueError, match="size must be a whole number"):
        SizeValidation(size)


def test_size_of_nothing():
    """SizeValidation refuses None as a size."""
    with pytest.raises((TypeError, ValueError)):
        SizeValidation(None)


# DigestValidation


def test_algorithms():
    """ALGORITHMS lists the digest algorithms from the strongest to the weakest."""
    assert list(DigestValidation.ALGORITHMS) == ALGORITHMS


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("change", [str, str.upper, str.title, " {}\n".format])
def test_digest(name, change):
    """DigestValidation accepts the right digest in any case and with white space around it."""
    validation = feed(DigestValidation(name, change(digest(name))))
    validation()
    validation.apply()
    assert validation.actual == validation.expected == digest(name)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_digest_of_an_empty_file(name):
    """DigestValidation accepts the digest of an empty file without any update."""
    DigestValidation(name, EMPTY[name])()
    with pytest.raises(DigestMismatch):
        DigestValidation(name, digest(name))()


@pytest.mark.parametrize("call", [DigestValidation.__call__, DigestValidation.apply])
def test_digest_mismatch(call):
    """The error of DigestValidation has both digests and names the algorithm."""
    validation = feed(DigestValidation("sha256", EMPTY["sha256"]))
    with pytest.raises(DigestMismatch, match="sha256") as caught:
        call(validation)
    assert (caught.value.expected, caught.value.actual) == (EMPTY["sha256"], digest("sha256"))


def test_digest_not_enforced(caplog):
    """A DigestValidation that isn't enforced logs one warning and raises nothing."""
    validation = feed(DigestValidation("md5", EMPTY["md5"], enforced=False))
    with caplog.at_level(logging.WARNING, module.__name__):
        validation()
    (record,) = caplog.records
    assert digest("md5") in record.getMessage()


def test_digest_reset():
    """DigestValidation starts again at the digest of no bytes after reset()."""
    validation = feed(DigestValidation("sha1", digest("sha1")))
    validation.reset()
    assert validation.actual == EMPTY["sha1"]
    feed(validation)()


def test_algorithm_is_of_hashlib():
    """`algorithm` of a DigestValidation is a hashlib object."""
    validation = DigestValidation("SHA256", EMPTY["sha256"])
    assert validation.algorithm.name == "sha256"
    assert validation.algorithm.digest() == hashlib.sha256().digest()


@pytest.mark.parametrize("name", ["", "sha3_256", "crc32", "sha-256", None, "shake_128", 256])
def test_unknown_algorithm(name):
    """DigestValidation refuses an unknown algorithm when made and names the known ones."""
    with pytest.raises(ValueError, match="use one of sha512"):
        DigestValidation(name, EMPTY["sha256"])


@pytest.mark.parametrize(
    "value", ["", None, EMPTY["sha1"], EMPTY["sha256"][:-1], EMPTY["sha256"][:-1] + "g", b"ab"]
)
def test_digest_that_cannot_be_one(value):
    """DigestValidation refuses an impossible digest text when it is made."""
    with pytest.raises(ValueError, match="64 hex digits"):
        DigestValidation("sha256", value)


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_buffers_do_not_matter(buffers):
    """Size and digest don't depend on how the content is split into buffers."""
    content = b"".join(buffers)
    feed(SizeValidation(len(content)), buffers)()
    for name in ALGORITHMS:
        feed(DigestValidation(name, digest(name, content)), buffers)()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_where_digests_are_restricted(name, monkeypatch):
    """DigestValidation passes usedforsecurity=False, so FIPS mode permits md5 and sha1."""
    asked = []
    real = hashlib.new

    def new(name, data=b"", **options):
        asked.append(options)
        return real(name, data, **options)

    monkeypatch.setattr("hashlib.new", new)
    new_hash(name)
    assert asked == [{"usedforsecurity": False}]


def test_repr():
    """The repr of a validation shows what it expects."""
    assert repr(SizeValidation(7)) == "SizeValidation(7, enforced=True)"
    assert repr(DigestValidation("md5", EMPTY["md5"], False)) == (
        f"DigestValidation('md5', '{EMPTY['md5']}', enforced=False)"
    )


# Whether a validation can be reset


class OnlyUpdate(Validation):
    def update(self, buffer):
        """Record something."""


class Both(OnlyUpdate):
    def reset(self):
        """Clear the record."""


class UpdateBelowReset(Both):
    def update(self, buffer):
        """Record something more."""


class CountingSize(SizeValidation):
    def update(self, buffer):
        """Record something more."""


class OnlyReset(SizeValidation):
    def reset(self):
        """Do more."""


class Unrelated:
    """Has the interface of a validation but no reset."""


@pytest.mark.parametrize(
    ("validation", "able"),
    [
        (Validation(), True),
        (SizeValidation(1), True),
        (DigestValidation("md5", EMPTY["md5"]), True),
        (Refuses(), True),
        (OnlyUpdate(), False),
        (Both(), True),
        (UpdateBelowReset(), False),
        (CountingSize(1), False),
        (OnlyReset(1), True),
        (Unrelated(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_can_reset(validation, able):
    """A validation can't be reset if a subclass overrides update but not reset."""
    assert can_reset(type(validation)) is able


def test_subclass_that_never_calls_us():
    """A plugin's validation that doesn't call our __init__ counts as enforced."""

    class Picky(Validation):
        def __init__(self):
            pass

        def apply(self):
            raise ValidationError("never")

    with pytest.raises(ValidationError, match="never"):
        Picky()()


class Restored(DigestValidation):
    """Restores its state by itself."""

    def __setstate__(self, state):
        vars(self).update(state)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
@pytest.mark.parametrize(
    "make",
    [
        lambda: SizeValidation(9, False),
        lambda: DigestValidation("sha256", digest("sha256"), False),
        lambda: Restored("sha256", digest("sha256"), False),
    ],
)
def test_a_copy_has_seen_nothing(make, way):
    """A copied validation expects the same and shares no state."""
    validation, fresh = make(), make()
    validation.update(b"abc")
    actual = validation.actual
    other = way(validation)
    assert (other.expected, other.enforced) == (validation.expected, validation.enforced)
    assert other.actual == fresh.actual
    other.update(b"x")
    assert validation.actual == actual
