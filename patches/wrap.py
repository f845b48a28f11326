"""How a patch wraps one of vLLM's functions: nothing is wrapped twice, left out, or mistaken for another, silently.

    wrap(InputProcessor, "process_inputs", _process_inputs)

    def _process_inputs(original, self, request_id, prompt, params, *args, **kwargs): ...

The patch's parameters behind `original` say what it was written for: vLLM's function must begin with them, and
`*args` and `**kwargs` stand for all that it takes besides. tools/seams.py reads them in the source.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

MARK = "vllm_dllm_patch"  # on a wrapper: whose it is. Not `__wrapped__`, which any other wrapper has too


def wrap(owner: Any, name: str, patch: Callable) -> None:
    """From now on `owner.name(...)` is `patch(original, ...)`; only once, however often this is called.

    `owner` is a class or a module. The function may be a plain one, a method (`self` is passed on), a staticmethod
    or a classmethod (`original` is then bound to its class), and others may have wrapped it before or wrap it later, as
    long as they do it with functools.wraps. Raises RuntimeError where it is not the one that `patch` was written for.
    """
    found: Any = getattr(owner, name, None)
    mark = f"{patch.__module__}.{patch.__qualname__}"
    if any(getattr(link, MARK, None) == mark for link in _chain(found)):
        return
    if reason := _unknown(owner, found, patch):
        raise _refusal(owner, name, patch, reason)
    kept = inspect.getattr_static(owner, name)
    if isinstance(kept, classmethod):
        function = kept.__func__

        @functools.wraps(function)
        def bound(cls, *args, **kwargs):
            return patch(MethodType(function, cls), *args, **kwargs)

        wrapper: Any = classmethod(bound)
    elif isinstance(kept, staticmethod) or inspect.ismodule(owner):
        wrapper = _Unbound(found, owner, name, patch)
    else:

        @functools.wraps(found)
        def wrapper(*args, **kwargs):
            return patch(found, *args, **kwargs)

    setattr(getattr(wrapper, "__func__", wrapper), MARK, mark)
    setattr(owner, name, staticmethod(wrapper) if isinstance(kept, staticmethod) else wrapper)


class _Unbound:
    """The wrapper of a function that needs no object, and may so be sent to another process.

    A function is sent as its name, which means vLLM's own one where nothing is wrapped yet. This is sent as what it is
    made of, and wraps that process's function too.
    """

    def __init__(self, found: Callable, owner: Any, name: str, patch: Callable):
        functools.update_wrapper(self, found)
        self._found, self._owner, self._name, self._patch = found, owner, name, patch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._patch(self._found, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable, tuple[Any, ...]]:
        owner = self._owner.__name__ if inspect.ismodule(self._owner) else self._owner
        return _wrapped, (owner, self._name, self._patch)


def _wrapped(owner: Any, name: str, patch: Callable) -> Callable:
    """A function, once it has been wrapped. `owner` is a class or a module's name."""
    owner = importlib.import_module(owner) if isinstance(owner, str) else owner
    wrap(owner, name, patch)
    return getattr(owner, name)


def add(owner: type, name: str, function: Any) -> None:
    """Give a class of vLLM's a method or a property. Raises RuntimeError where it has one of that name already."""
    if getattr(owner, name, function) is not function:
        raise _refusal(owner, name, function, "has to be new, and there is one already")
    setattr(owner, name, function)


def parameters(patch: inspect.Signature) -> inspect.Signature:
    """What vLLM's function is called with: `patch`'s parameters behind `original`."""
    return patch.replace(parameters=list(patch.parameters.values())[1:])


def misfit(wanted: inspect.Signature, found: inspect.Signature) -> str | None:
    """Why a function that takes `found` is not one that takes `wanted`, in which `*args` and `**kwargs` stand for more."""
    names, others = _positional(wanted), _positional(found)
    kinds = {p.kind for p in wanted.parameters.values()}
    open_ended = inspect.Parameter.VAR_POSITIONAL in kinds, inspect.Parameter.VAR_KEYWORD in kinds
    by_name = {p.name: p for p in found.parameters.values() if p.kind is p.KEYWORD_ONLY}
    also = {p.name for p in wanted.parameters.values() if p.kind is p.KEYWORD_ONLY}
    fits = (
        others[: len(names)] == names
        and (len(others) == len(names) or all(open_ended))
        and also <= {name for name, _ in others} | set(by_name)
        and (set(by_name) <= also or open_ended[1])
        and all(_stands_open(p, open_ended) for p in found.parameters.values())
    )
    return None if fits else f"has to take {_shown(wanted)}, and takes {_shown(found)}"


def _unknown(owner: Any, found: Any, patch: Callable) -> str | None:
    """Why `found` is not the function that `patch` was written for, None where it is."""
    if not callable(found):
        return "does not exist" if found is None else f"is no function but {found!r}"
    *_, original = _chain(found)
    package = getattr(owner, "__module__", None) or owner.__name__  # a module's own name
    module = getattr(original, "__module__", None) or ""
    if module.partition(".")[0] != package.partition(".")[0]:
        return (
            f"has been replaced by {module}.{getattr(original, '__qualname__', original)} "
            "(whoever wraps it has to use functools.wraps)"
        )
    if inspect.iscoroutinefunction(original) != inspect.iscoroutinefunction(patch):
        return f"is {'a' if inspect.iscoroutinefunction(original) else 'no'} coroutine function"
    return misfit(parameters(inspect.signature(patch)), inspect.signature(found))


def _refusal(owner: Any, name: str, patch: Callable, reason: str) -> RuntimeError:
    import vllm

    module = getattr(owner, "__module__", None)
    what = f"{module}.{owner.__qualname__}.{name}" if module else f"{owner.__name__}.{name}"
    return RuntimeError(
        f"vllm-dllm does not work with this vllm {vllm.__version__}: {what}, which {patch.__module__} changes, {reason}"
    )


def _chain(function: Any) -> Iterator[Any]:
    """A function, what it wraps, what that wraps... to the original."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def _positional(signature: inspect.Signature) -> list[tuple[str, bool]]:
    """(name, whether it must be given) of the parameters that have a place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [(p.name, p.default is p.empty) for p in signature.parameters.values() if p.kind in kinds]


def _stands_open(parameter: inspect.Parameter, open_ended: tuple[bool, bool]) -> bool:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return open_ended[0]
    return open_ended[1] if parameter.kind is parameter.VAR_KEYWORD else True


def _shown(signature: inspect.Signature) -> str:
    """A signature without types."""
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))
