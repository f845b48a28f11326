"""How patches wrap vLLM's functions: in any order, over and under others, once, and nothing that they do not know."""

import asyncio
import colorsys
import functools
import multiprocessing
import os
import sys
import types

import pytest

from vllm_dllm.patches.wrap import add, wrap


def foreign(function):
    """What another plugin makes of it."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + ["foreign"]

    return wrapper


@pytest.fixture
def theirs():
    """A class and a module with functions of every kind, as vLLM has them."""

    class Engine:
        def method(self, a, b=2):
            return [self, a, b]

        @staticmethod
        def static(a):
            return [a]

        @classmethod
        def made(cls, a):
            return [cls, a]

        async def waits(self, a):
            return [self, a]

        def many(self, a, *, b=2, **rest):
            return [self, a, b, rest]

    module = types.ModuleType("test_wrap.theirs")
    module.Engine = Engine
    exec("def plain(a):\n    return [a]", module.__dict__)
    return module


def first(original, self, a, b=2):
    return ["first", *original(self, a, b)]


def second(original, self, *args, **kwargs):
    return [*original(self, *args, **kwargs), "second"]


def with_process(original, *args, **kwargs):
    return os.getpid(), original(*args, **kwargs)


def of_class(original, a):
    return ["ours", *original(a)]


@pytest.mark.parametrize("patches", [(first, second), (second, first)])
def test_order_does_not_matter(theirs, patches):
    for patch in patches:
        wrap(theirs.Engine, "method", patch)
    engine = theirs.Engine()
    assert engine.method(1) == ["first", engine, 1, 2, "second"]


def test_applied_once_however_often_asked(theirs):
    for _ in range(3):
        wrap(theirs.Engine, "method", first)
        wrap(theirs.Engine, "method", second)
    engine = theirs.Engine()
    assert engine.method(1, b=3) == ["first", engine, 1, 3, "second"]


def test_over_and_under_foreign_wrappers(theirs):
    theirs.Engine.method = foreign(theirs.Engine.method)
    wrap(theirs.Engine, "method", first)
    theirs.Engine.method = foreign(theirs.Engine.method)
    wrap(theirs.Engine, "method", second)
    wrap(theirs.Engine, "method", first)
    engine = theirs.Engine()
    assert engine.method(1) == ["first", engine, 1, 2, "foreign", "foreign", "second"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_every_kind_of_function(theirs, wrapped):
    engine_class, rest = theirs.Engine, ["foreign"] if wrapped else []
    if wrapped:
        engine_class.static = staticmethod(foreign(engine_class.static))
        engine_class.made = classmethod(foreign(engine_class.made.__func__))
        theirs.plain = foreign(theirs.plain)

    class Derived(engine_class):
        pass

    for _ in range(2):
        wrap(engine_class, "static", of_class)
        wrap(engine_class, "made", of_class)
        wrap(theirs, "plain", of_class)
    assert engine_class.static(1) == engine_class().static(1) == ["ours", 1, *rest]
    assert engine_class.made(1) == ["ours", engine_class, 1, *rest]
    assert Derived.made(1) == Derived().made(1) == ["ours", Derived, 1, *rest]
    assert theirs.plain(1) == ["ours", 1, *rest]


def test_sent_to_another_process_a_function_is_wrapped_there_too(monkeypatch):
    """There its name means the original."""
    monkeypatch.setattr(colorsys, "rgb_to_hsv", colorsys.rgb_to_hsv)  # put back at the end
    wrap(colorsys, "rgb_to_hsv", with_process)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        process, found = pool.apply(colorsys.rgb_to_hsv, (1.0, 0.0, 0.0))
    assert process != os.getpid() and found == (0.0, 1.0, 1.0)


def test_a_classmethod_that_another_bound(theirs):
    theirs.Engine.made = foreign(theirs.Engine.made)
    wrap(theirs.Engine, "made", of_class)
    assert theirs.Engine.made(1) == ["ours", theirs.Engine, 1, "foreign"]


def test_coroutines(theirs):
    async def waits(original, self, a):
        return ["ours", *await original(self, a)]

    wrap(theirs.Engine, "waits", waits)
    engine = theirs.Engine()
    assert asyncio.run(engine.waits(1)) == ["ours", engine, 1]
    with pytest.raises(RuntimeError, match="Engine.method, which test_wrap changes, is no coroutine function"):
        wrap(theirs.Engine, "method", waits)


def refused(owner, name, patch) -> str:
    before = getattr(owner, name, None)
    with pytest.raises(RuntimeError) as error:
        wrap(owner, name, patch)
    assert getattr(owner, name, None) is before
    return str(error.value)


def test_refusals_name_function_version_and_difference(theirs):
    import vllm

    def renamed(original, self, x, b=2): ...
    def fewer(original, self, a): ...
    def more(original, self, a, b=2, c=3): ...
    def required(original, self, a, b): ...
    def named(original, self, *args, c=3, **kwargs): ...

    for patch in (renamed, fewer, more, required, named):
        said = refused(theirs.Engine, "method", patch)
        assert vllm.__version__ in said
        assert "test_wrap.theirs.<locals>.Engine.method, which test_wrap changes, has to take (self, " in said
        assert said.endswith("and takes (self, a, b=2)")
    assert refused(theirs.Engine, "gone", first).endswith("does not exist")
    assert "test_wrap.theirs.gone, which" in refused(theirs, "gone", first)
    theirs.Engine.number = 3
    assert refused(theirs.Engine, "number", first).endswith("is no function but 3")


def test_what_a_patch_does_not_pass_on_is_refused(theirs):
    def without_rest(original, self, a, *, b=2): ...
    def without_b(original, self, a, **rest): ...
    def with_positions(original, self, a, *args, b=2, **rest): ...

    assert "has to take (self, a, *, b=2)" in refused(theirs.Engine, "many", without_rest)
    wrap(theirs.Engine, "many", without_b)
    wrap(theirs.Engine, "many", with_positions)


def test_a_changed_original_is_seen_under_a_foreign_wrapper(theirs):
    def method(self, b, a): ...

    theirs.Engine.method = foreign(method)
    assert refused(theirs.Engine, "method", first).endswith("and takes (self, b, a)")


def test_a_replaced_original_is_refused(theirs):
    def method(self, a, b=2): ...

    method.__module__ = "another_plugin.patches"
    theirs.Engine.method = method
    said = refused(theirs.Engine, "method", first)
    assert "has been replaced by another_plugin.patches.test_a_replaced" in said and "functools.wraps" in said


def test_add_makes_no_room_for_itself(theirs):
    def new(self): ...

    add(theirs.Engine, "new", new)
    add(theirs.Engine, "new", new)
    with pytest.raises(RuntimeError, match=r"Engine\.method, which test_wrap changes, has to be new"):
        add(theirs.Engine, "method", new)
    assert sys.modules[new.__module__] is not None
