"""What functions take, and constructors of dataclasses, from their syntax."""

import ast
import inspect
from typing import Any


class Code(str):
    """A parameter's default, which a signature shows as it is written."""

    __repr__ = str.__str__


def signature(args: ast.arguments) -> inspect.Signature:
    P = inspect.Parameter
    positional = [*args.posonlyargs, *args.args]
    defaults = [P.empty] * (len(positional) - len(args.defaults)) + [Code(ast.unparse(d)) for d in args.defaults]
    kinds = [P.POSITIONAL_ONLY] * len(args.posonlyargs) + [P.POSITIONAL_OR_KEYWORD] * len(args.args)
    found = [P(a.arg, kind, default=d) for a, kind, d in zip(positional, kinds, defaults, strict=True)]
    if args.vararg:
        found.append(P(args.vararg.arg, P.VAR_POSITIONAL))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found.append(P(arg.arg, P.KEYWORD_ONLY, default=P.empty if default is None else Code(ast.unparse(default))))
    if args.kwarg:
        found.append(P(args.kwarg.arg, P.VAR_KEYWORD))
    return inspect.Signature(found)


def makes_init(cls: ast.ClassDef) -> bool:
    """Whether the class is one of those whose fields are its constructor's parameters."""
    decorators = {last_name(d) for d in cls.decorator_list}
    bases = {last_name(b) for b in cls.bases}
    return bool(decorators & {"dataclass", "config"} or bases & {"NamedTuple", "Struct", "BaseModel"})


def field(node: ast.AnnAssign) -> inspect.Parameter | None:
    """The constructor's parameter for a field of a dataclass or its kin."""
    assert isinstance(node.target, ast.Name)
    default: Any = inspect.Parameter.empty
    if node.value is not None:
        default = Code(ast.unparse(node.value))
        if isinstance(node.value, ast.Call) and last_name(node.value.func) in ("field", "Field"):
            options = {k.arg: ast.unparse(k.value) for k in node.value.keywords}
            if options.get("init") == "False":
                return None
            if not (node.value.args or {"default", "default_factory"} & set(options)):
                default = inspect.Parameter.empty
    return inspect.Parameter(node.target.id, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


def last_name(node: ast.expr) -> str:
    """`b` of a decorator, base class or type that is written `a.b`, `a.b(...)` or `a.b[...]`."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
