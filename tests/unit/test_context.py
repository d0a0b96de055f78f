"""Tests of the context that downloads share, and of its cache."""

import contextlib
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from interrupts import at_each_place

from pulpcore.plugin.download.futures import context as context_module
from pulpcore.plugin.download.futures.context import Cache, Context, Resource
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled, scope

THREADS = 32


class Thing:
    """An object that only the cache may hold."""


class Alike:
    """A key that has the same hash as all others of its class and equals none of them."""

    def __hash__(self):
        return 7


class Equal:
    """A key that equals another one with the same name."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return self.name == other.name


class Counted(Resource):
    """A resource that counts how often it was closed."""

    def __init__(self, error=None):
        self.closed = 0
        self.error = error

    def close(self):
        """Count, and fail if the test says so."""
        self.closed += 1
        if self.error is not None:
            raise self.error


def kind(value):
    """Return the id of a parameter: its class name, which is the same in each process."""
    return type(value).__name__


@pytest.fixture
def cache():
    """Make an empty cache."""
    return Cache()


@pytest.fixture
def clock(monkeypatch):
    """Make a clock that stands still until the test sets it."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


def together(work, threads=THREADS):
    """Run work(number) in threads that start at once. Return the results."""
    barrier = threading.Barrier(threads)

    def begin(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


# Cache.once


def interrupted(_):
    """Stand in for a function before which Ctrl-C comes."""
    raise KeyboardInterrupt


def test_once(cache, monkeypatch):
    """Of many threads that ask at once, one makes the object while all others wait for it."""
    made, waiting, all_wait = [], set(), threading.Event()
    original = context_module._Making.wait

    def wait(self):
        waiting.add(threading.get_ident())
        if len(waiting) == THREADS - 1:
            all_wait.set()
        return original(self)

    def make():
        made.append(object())
        assert all_wait.wait(20)
        return made[-1]

    monkeypatch.setattr(context_module._Making, "wait", wait)

    found = together(lambda _: cache.once("key", make))
    assert len(made) == 1
    assert found == made * THREADS
    assert cache.get("key") is made[0]


def test_once_fails(cache):
    """If making fails, that thread gets the error, and each other one makes the object itself."""
    numbers = iter(range(THREADS + 1))

    def make():
        if (number := next(numbers)) < 2:
            raise ValueError(number)
        return number

    def ask(_):
        try:
            return cache.once("key", make)
        except ValueError as error:
            return str(error)

    found = together(ask)
    assert sorted(found, key=str)[:2] == ["0", "1"]
    assert [each for each in found if each == 2] == [2] * (THREADS - 2)


def test_once_of_its_own(cache):
    """What makes an object may ask for another one."""
    assert cache.once("a", lambda: [cache.once("b", list)]) == [[]]


def test_once_after_an_interrupt(cache):
    """Wherever Ctrl-C comes while an object is made, another thread still gets one."""

    def scenario(armed):
        cache = Cache()
        with armed:
            cache.once("key", object)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cache.once, "key", object).result(20) is cache.get("key")

    assert at_each_place(scenario) > 5


def test_once_begun_and_never_run(cache, monkeypatch):
    """A thread that was interrupted before it began to make an object keeps nobody waiting."""
    monkeypatch.setattr(context_module, "HEARING", 0.01)
    monkeypatch.setattr(context_module._Making, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.once("key", object)
    monkeypatch.undo()
    monkeypatch.setattr(context_module, "HEARING", 0.01)
    assert cache.once("key", lambda: 5) == 5


def test_once_made_just_before(cache, monkeypatch):
    """A thread that begins to make an object just after another has made it makes none."""

    class Making(dict):
        def setdefault(self, name, making):
            cache.put("key", 1)
            return super().setdefault(name, making)

    monkeypatch.setattr(cache, "_making", Making())
    assert cache.once("key", pytest.fail) == 1


def test_once_takes_long(cache, monkeypatch):
    """A thread waits for another that makes the object, however long that takes."""
    monkeypatch.setattr(context_module, "HEARING", 0.001)
    began, go_on, waits = threading.Event(), threading.Event(), []

    def make():
        began.set()
        assert go_on.wait(20)
        return 1

    original = context_module._Making.wait

    def wait(self):
        waits.append(self)
        if len(waits) > 3:
            go_on.set()
        return original(self)

    monkeypatch.setattr(context_module._Making, "wait", wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.once, "key", make)
        assert began.wait(20)
        assert cache.once("key", lambda: 2) == first.result(20) == 1


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_once_cancelled(cache, monkeypatch, is_cancelled):
    """A thread stops waiting if its work is cancelled, and goes on waiting if it is only nudged."""
    monkeypatch.setattr(context_module, "HEARING", 1000)
    began, go_on, token, waits = threading.Event(), threading.Event(), Cancellation(), []

    def make():
        began.set()
        assert go_on.wait(20)
        return 1

    attach = token.attach

    def attached(sleeper):
        attach(sleeper)
        waits.append(sleeper)
        if is_cancelled:
            token.cancel("enough")
        elif len(waits) < 3:
            token.nudge()
        else:
            go_on.set()

    monkeypatch.setattr(token, "attach", attached)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.once, "key", make)
        assert began.wait(20)
        with scope(token), pytest.raises(Cancelled) if is_cancelled else contextlib.nullcontext():
            assert cache.once("key", lambda: 2) == 1
        go_on.set()
        assert first.result(20) == 1


# Cache


@pytest.mark.parametrize("key", ["a", 1, None, ("a", 1), frozenset("ab"), b"", Alike()], ids=kind)
@pytest.mark.parametrize("thing", [None, False, "", object()], ids=kind)
def test_put_get_purge(cache, key, thing):
    """The cache stores any object under any hashable key, also None and empty ones."""
    cache.put(key, thing)
    assert key in cache
    assert cache.get(key) is thing
    assert cache.purge(key) is thing
    assert key not in cache


@pytest.mark.parametrize("method", ["get", "purge"])
def test_missing(cache, method):
    """A missing key is a LookupError that doesn't show the key, which may be a credential."""
    with pytest.raises(LookupError) as caught:
        getattr(cache, method)("s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("method", ["put", "get", "purge", "setdefault", "__contains__"])
def test_key_that_does_not_hash(cache, method):
    """An unhashable key is a TypeError, after which the cache still works."""
    cache.put("a", 1)
    with pytest.raises(TypeError, match="unhashable"):
        getattr(cache, method)([], *([1] if method in ("put", "setdefault") else []))
    assert cache.get("a") == 1


def test_replace(cache):
    """Putting another object under a key replaces the first one in the cache."""
    cache.put("a", 1)
    cache.put("a", 2)
    assert cache.get("a") == 2


def test_setdefault(cache):
    """setdefault() of the cache stores an object only if the key is missing."""
    assert cache.setdefault("a", None) is None
    assert cache.setdefault("a", 2) is None
    assert cache.get("a") is None


def test_keys_that_hash_alike(cache):
    """Different cache keys with equal hashes, such as -1 and -2, don't collide."""
    keys = [Alike() for _ in range(10)]
    for number, key in enumerate(keys):
        cache.put(key, number)
    assert [cache.get(key) for key in keys] == list(range(10))
    cache.put(-1, "one")
    cache.put(-2, "two")
    assert (cache.get(-1), cache.get(-2)) == ("one", "two")
    cache.purge(-1)
    assert cache.get(-2) == "two"


def test_keys_that_are_equal(cache):
    """The cache finds an object by an equal key."""
    cache.put(Equal("a"), 1)
    assert cache.get(Equal("a")) == 1


def test_evict_of_nothing(cache):
    """Evicting from an empty cache does nothing."""
    assert cache.evict() == []


def test_default_threshold(cache, clock):
    """By default evict() keeps an object for four hours after its last use."""
    assert cache.eviction_threshold == timedelta(hours=4)
    cache.put("a", Thing())
    clock.now += 4 * 3600 - 1
    assert cache.evict() == []
    cache.get("a")
    clock.now += 4 * 3600 - 1
    assert cache.evict() == []
    cache.setdefault("a", None)
    clock.now += 4 * 3600 - 1
    assert cache.evict() == []
    clock.now += 1
    (evicted,) = cache.evict()
    assert isinstance(evicted, Thing)
    assert "a" not in cache


def test_in_is_not_asking_for(cache, clock):
    """Testing with `in` doesn't count as use of a cached object."""
    cache.put("a", Thing())
    clock.now += 4 * 3600
    assert "a" in cache
    assert len(cache.evict()) == 1


def test_threshold_of_zero(clock):
    """A threshold of zero evicts an object at once."""
    cache = Cache(timedelta(0))
    cache.put("a", Thing())
    cache.put("b", Thing())
    assert len(cache.evict()) == 2
    assert "a" not in cache
    assert cache.evict() == []


def test_what_is_held_stays():
    """evict() keeps an object that is referenced outside of the cache."""
    cache = Cache(timedelta(0))
    held = Thing()
    cache.put("held", held)
    cache.put("free", Thing())
    assert len(cache.evict()) == 1
    assert cache.get("held") is held
    del held
    (evicted,) = cache.evict()
    assert isinstance(evicted, Thing)
    assert "held" not in cache


def test_held_by_a_container():
    """evict() keeps an object that a list outside of the cache references."""
    cache = Cache(timedelta(0))
    things = [Thing()]
    cache.put("a", things[0])
    assert cache.evict() == []
    assert cache.get("a") is things[0]


def test_one_object_under_two_keys():
    """An object stored under two keys is evicted, as the cache's references don't count."""
    cache = Cache(timedelta(0))
    cache.put("a", Thing())
    cache.put("b", cache.get("a"))
    assert cache.evict()
    assert "a" not in cache
    assert "b" not in cache


def test_asked_for_while_it_is_evicted(cache, clock):
    """evict() keeps an object that another thread gets or replaces at that moment."""
    cache.eviction_threshold = timedelta(seconds=10)

    class Looking(dict):
        def pop(self, key, default):
            item = self[key]
            if key == "asked":
                cache.get(key)
                return super().pop(key)
            self["replaced"] = cache._Item("new")
            super().pop(key)
            return item if key != "replaced" else None

    cache._items = Looking()
    for key in ("asked", "replaced"):
        cache.put(key, Thing())
    clock.now += 20
    assert cache.evict() == []
    assert "asked" in cache


def test_threshold_may_be_changed(cache, clock):
    """evict() uses the current value of the threshold attribute."""
    cache.put("a", Thing())
    cache.eviction_threshold = timedelta(0)
    assert len(cache.evict()) == 1


def test_close(cache):
    """Closing the cache closes and removes its resources and keeps others. It can be repeated."""
    resource = Counted()
    cache.put("resource", resource)
    cache.put("token", "t")
    cache.close()
    cache.close()
    assert resource.closed == 1
    assert "resource" not in cache
    assert cache.get("token") == "t"


def test_close_that_fails(cache):
    """If closing one resource fails, the cache still closes the others."""
    resources = [Counted(OSError("broken")) if number == 1 else Counted() for number in range(3)]
    for number, resource in enumerate(resources):
        cache.put(number, resource)
    with contextlib.suppress(OSError):
        cache.close()
    assert [resource.closed for resource in resources] == [1, 1, 1]


def test_resource_is_abstract():
    """A Resource subclass without close() can't be instantiated."""
    with pytest.raises(TypeError, match="close"):
        Resource()


def test_repr_of_a_cache(cache):
    """The repr of a cache shows neither keys nor objects."""
    cache.put("k3y", "s3cret")
    assert repr(cache) == "<Cache of 1>"


def test_an_object_that_ends_may_use_the_cache(cache):
    """An object's finalizer may use the cache, whichever call drops the object."""
    free = []

    class Final:
        def __del__(self):
            other = threading.Thread(target=lambda: "a" in cache, daemon=True)
            other.start()
            other.join(20)
            free.append(not other.is_alive())

    cache.put("a", Final())
    cache.put("a", Final())
    cache.setdefault("a", Final())
    cache.purge("a")
    cache.put("a", Final())
    cache.eviction_threshold = timedelta(0)
    cache.evict()
    assert free == [True] * 4


def test_32_threads(cache):
    """Threads that put, get, purge and evict at once see consistent objects and no error."""
    cache.eviction_threshold = timedelta(0)
    keys = [Alike() for _ in range(8)]

    def work(number):
        for turn in range(300):
            key = keys[(number + turn) % len(keys)]
            cache.put(key, (key, [number]))
            for method in (cache.get, cache.purge):
                try:
                    found, _ = method(key)
                except LookupError:
                    continue
                assert found is key
            if turn % 50 == 0:
                cache.evict()
            assert (key in cache) in (True, False)

    together(work)
    cache.evict()
    assert not [key for key in keys if key in cache]


def test_32_threads_purge(cache):
    """If many threads purge one key, exactly one gets the object."""

    def work(number):
        try:
            return cache.purge("a")
        except LookupError:
            return None

    cache.put("a", "thing")
    assert sorted(together(work), key=str) == [None] * (THREADS - 1) + ["thing"]


def test_32_threads_setdefault(cache):
    """If many threads call setdefault() with one key, all get the same object."""
    assert (
        len({id(thing) for thing in together(lambda number: cache.setdefault("a", Thing()))}) == 1
    )


# Context


def test_attributes():
    """Attributes of a context are set, read, changed and deleted like those of any object."""
    context = Context(a=1)
    context.b = 2
    context.a += 1
    assert (context.a, context.b) == (2, 2)
    del context.b
    assert not hasattr(context, "b")


def test_missing_attribute():
    """A missing attribute of a context is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="'token'"):
        _ = Context().token


def test_each_has_a_cache():
    """Each context has its own cache unless one is passed."""
    cache = Cache()
    assert isinstance(Context().cache, Cache)
    assert Context().cache is not Context().cache
    assert Context(cache=cache).cache is cache


def test_attributes_are_shared_by_threads():
    """Unlike threading.local, a context shares its attributes between threads."""
    context = Context()
    thread = threading.Thread(target=setattr, args=(context, "token", "t"))
    thread.start()
    thread.join()
    assert context.token == "t"


def test_check_then_set():
    """With the context's lock held, exactly one of many threads sets an attribute."""
    context = Context(made=[])

    def work(number):
        with context as entered:
            assert entered is context
            if not hasattr(context, "token"):
                context.made.append(number)
                context.token = number
        return context.token

    assert len(set(together(work))) == 1
    assert len(context.made) == 1


def test_lock_is_reentrant():
    """The lock of a context is reentrant, and is released after an exception, too."""
    context = Context()
    with pytest.raises(KeyError), context, context:
        raise KeyError
    together(lambda number: context.__enter__().__exit__(None, None, None), 2)


def test_with_gives_the_context():
    """``with context as name`` gives the context."""
    context = Context()
    with context as same:
        assert same is context


def test_context_close():
    """Closing a context closes its resources, and it can still be used."""
    context = Context(token="t")
    resource = Counted()
    context.cache.put("a", resource)
    context.close()
    context.close()
    assert (resource.closed, context.token) == (1, "t")
    context.cache.put("a", resource)
    assert context.cache.get("a") is resource


def test_no_secret():
    """The repr of a context shows names of attributes but no values, as they may be tokens."""
    assert repr(Context(token="s3cret", b=1)) == "<Context b, token>"


def test_contexts_are_collected():
    """A context without references is freed together with the objects in its cache."""

    class Probe:
        alive = 0

        def __init__(self):
            Probe.alive += 1

        def __del__(self):
            Probe.alive -= 1

    context = Context(probe=Probe())
    context.cache.put("a", Probe())
    del context
    gc.collect()
    assert Probe.alive == 0
