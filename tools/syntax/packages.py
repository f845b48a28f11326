"""Python packages as their source tells: modules, classes, functions and signatures, without importing anything.

Of a wheel, a folder or an installed package. What the source does not tell (a type that is not written down, a
base class of another package that is not installed) is None, and whoever asks lets it pass.
"""

import ast
import importlib
import importlib.util
import inspect
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from syntax.signatures import field, last_name, makes_init, signature

Read = Callable[[str], str | None]  # a file's path, as in "vllm/config/__init__.py" -> its text
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def reader(where: Path) -> Read:
    """Reads files of a wheel, or of a folder in which packages lie. Raises FileNotFoundError if there is neither."""
    if where.is_dir():
        return lambda path: (where / path).read_text() if (where / path).is_file() else None
    wheel = zipfile.ZipFile(where)
    names = set(wheel.namelist())
    return lambda path: wheel.read(path).decode() if path in names else None


def installed(package: str) -> Path:
    """The folder in which an installed package lies."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no package {package} is installed here")
    return Path(spec.origin).parent.parent


@dataclass(frozen=True)
class Imported:
    """A name that a module has from another: `from module import name`, or `import module` where `name` is None."""

    module: str
    name: str | None


@dataclass(frozen=True)
class Value:
    """A variable of a module or a class, with what is written down of its type and of its value."""

    module: "Module"
    annotation: ast.expr | None
    value: ast.expr | None
    function: "Function | None" = None  # in which `self.x = value` stands


@dataclass(frozen=True)
class Instance:
    of: "Class"


@dataclass(frozen=True)
class Elements:
    """A container of instances: a list, tuple, set or queue, or the values of a dictionary."""

    of: "Class"


@dataclass(frozen=True)
class Function:
    module: "Module"
    node: FunctionNode
    owner: "Class | None" = None

    @property
    def is_coroutine(self) -> bool:
        yields = any(isinstance(node, ast.Yield) for node in ast.walk(self.node))
        return isinstance(self.node, ast.AsyncFunctionDef) and not yields

    def decorated(self, *names: str) -> bool:
        return any(last_name(d) in names for d in self.node.decorator_list)

    @property
    def signature(self) -> inspect.Signature:
        """With `self`; without a classmethod's `cls`."""
        found = signature(self.node.args)
        if self.decorated("classmethod"):
            found = found.replace(parameters=list(found.parameters.values())[1:])
        return found


class Module:
    def __init__(self, packages: "Packages", name: str, text: str, is_package: bool):
        self.packages = packages
        self.name = name
        self.is_package = is_package
        self.tree = ast.parse(text)
        self.looked_up: set[str] = set()  # names under way

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def names(self) -> dict[str, list[Any]]:
        """What each name stands for, in the order of the source: both branches of an `if` or a `try` count."""
        found: dict[str, list[Any]] = {}
        for node in statements(self.tree.body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, imported in self.imported(node):
                    found.setdefault(name, []).append(imported)
            elif isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(Class(self, node))
            elif isinstance(node, FunctionNode):
                found.setdefault(node.name, []).append(Function(self, node))
            else:
                for name, value in assigned(self, node):
                    found.setdefault(name, []).append(value)
        return found

    def imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Imported]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.split(".")[0],
                    Imported(alias.name if alias.asname else alias.name.split(".")[0], None),
                )
            return
        parts = self.name.split(".") if node.level else []
        parts = parts[: len(parts) - node.level + self.is_package]
        source = ".".join([*parts, *([node.module] if node.module else [])])
        for alias in node.names:
            yield alias.asname or alias.name, Imported(source, alias.name)

    def all(self, name: str) -> list[Any]:
        """Everything that `name` stands for here; a module, class, function, value, or Imported from elsewhere."""
        if name in self.looked_up:  # a package that imports a name from itself: a module of it, see below
            return []
        self.looked_up.add(name)
        found = []
        for item in self.names.get(name, []):
            found += self.packages.follow(item) if isinstance(item, Imported) else [item]
        self.looked_up.remove(name)
        if not found and self.packages.module(f"{self.name}.{name}"):
            return [self.packages.module(f"{self.name}.{name}")]
        for star in self.names.get("*", []) if not found else []:
            if (module := self.packages.module(star.module)) and module is not self:
                found += module.all(name)
        return found


class Class:
    def __init__(self, module: Module, node: ast.ClassDef):
        self.module = module
        self.node = node
        self.name = node.name

    def __repr__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def package(self) -> str:
        return self.module.name.split(".")[0]

    @cached_property
    def bases(self) -> list[Any]:
        """Classes, and Imported for those of packages whose source is not looked at."""
        found = []
        for base in self.node.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base  # Generic[T]
            found += [b for b in self.module.packages.named(self.module, expression) if isinstance(b, Class | Imported)]
        return found

    @cached_property
    def own(self) -> dict[str, Any]:
        """Its functions and variables, by name; `self.x = ...` in its methods counts."""
        found: dict[str, Any] = {}
        for node in statements(self.node.body):
            if isinstance(node, FunctionNode):
                found[node.name] = Function(self.module, node, self)
                for inner in ast.walk(node):
                    for name, value in assigned(self.module, inner, method=found[node.name]):
                        if name not in found or (isinstance(found[name], Value) and not found[name].annotation):
                            found[name] = value
            elif isinstance(node, ast.ClassDef):
                found[node.name] = Class(self.module, node)
            else:
                found |= dict(assigned(self.module, node))
        return found

    @property
    def family(self) -> "Iterator[Class]":
        """The class and those it derives from, as far as their source is looked at."""
        yield self
        for base in self.bases:
            if isinstance(base, Class):
                yield from base.family

    @property
    def foreign(self) -> Iterator[Imported]:
        """Other packages' classes it derives from."""
        for cls in self.family:
            yield from (base for base in cls.bases if isinstance(base, Imported))

    def member(self, name: str) -> Any:
        """A Function, Value or Class; None where it has none of that name."""
        return next((cls.own[name] for cls in self.family if name in cls.own), None)

    def may_have(self, name: str) -> bool:
        """Whether it has a member of that name, or might: for what other packages' classes bring, they are imported."""
        if self.member(name) or self.member("__getattr__") or hasattr(object, name):
            return True
        return any(base is None or hasattr(base, name) for base in map(_import, self.foreign))

    @cached_property
    def constructor(self) -> inspect.Signature | None:
        """What making an instance takes, with `self`; None where the source does not tell."""
        init = self.member("__init__")
        if isinstance(init, Function):
            return init.signature
        family = list(self.family)[::-1]
        if not any(makes_init(cls.node) for cls in family):
            return None
        fields: dict[str, inspect.Parameter] = {}
        for cls in family:
            for node in statements(cls.node.body):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    if "ClassVar" not in ast.unparse(node.annotation) and (found := field(node)):
                        fields[found.name] = found
        parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *fields.values()]
        # a required field behind an optional one is by keyword alone (pydantic, kw_only)
        optional = False
        for i, p in enumerate(parameters):
            optional |= p.default is not p.empty
            if optional and p.default is p.empty:
                parameters[i] = p.replace(kind=p.KEYWORD_ONLY)
        return inspect.Signature(sorted(parameters, key=lambda p: p.kind))


class Packages:
    """The packages whose source is looked at, by name."""

    def __init__(self, readers: dict[str, Read]):
        self.readers = readers
        self.modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        if name not in self.modules:
            self.modules[name] = None
            read = self.readers.get(name.split(".")[0], lambda path: None)
            path = name.replace(".", "/")
            for file, is_package in ((f"{path}/__init__.py", True), (f"{path}.py", False)):
                if (text := read(file)) is not None:
                    self.modules[name] = Module(self, name, text, is_package)
                    break
        return self.modules[name]

    def find(self, name: str) -> Any:
        """What stands under a whole name, as in vllm.config.vllm.VllmConfig.compute_hash; None if nothing does."""
        parts = name.split(".")
        for i in range(len(parts), 0, -1):
            found: Any = self.module(".".join(parts[:i]))
            if found:
                for part in parts[i:]:
                    if isinstance(found, Module):
                        found = next(iter(found.all(part)), None)
                    else:
                        found = found.member(part) if isinstance(found, Class) else None
                return found
        return None

    def is_read(self, module: str) -> bool:
        return module.split(".")[0] in self.readers

    def follow(self, imported: Imported) -> list[Any]:
        """What is imported; [] where a package that is looked at does not have it."""
        if not self.is_read(imported.module):
            return [imported]
        module = self.module(imported.module)
        if imported.name is None or module is None:
            return [module] if module else []
        return module.all(imported.name)

    def named(self, module: Module, expression: ast.expr) -> list[Any]:
        """What a name, or names with dots, stands for in a module."""
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            expression = ast.parse(expression.value, mode="eval").body
        if isinstance(expression, ast.Name):
            return module.all(expression.id)
        found = []
        if isinstance(expression, ast.Attribute):
            for of in self.named(module, expression.value):
                if isinstance(of, Module):
                    found += of.all(expression.attr)
                elif isinstance(of, Class):
                    found += [of.member(expression.attr)] if of.member(expression.attr) else []
                elif isinstance(of, Imported):
                    found.append(Imported(f"{of.module}.{of.name}" if of.name else of.module, expression.attr))
        return found

    def annotated(self, module: Module, annotation: ast.expr | None) -> Instance | Elements | None:
        """What a value with this annotation is, `| None` left aside; None if it says several things, or nothing."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
            parts = [a for a in (annotation.left, annotation.right) if ast.unparse(a) != "None"]
            return self.annotated(module, parts[0]) if len(parts) == 1 else None
        if isinstance(annotation, ast.Subscript):
            outer, inner = last_name(annotation.value), annotation.slice
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if outer in ("Optional", "Annotated", "Final"):
                return self.annotated(module, parts[0])
            if outer in CONTAINERS:
                found = self.annotated(module, parts[-1] if outer in MAPPINGS else parts[0])
                return Elements(found.of) if isinstance(found, Instance) else None
            return None
        if not isinstance(annotation, ast.Name | ast.Attribute):
            return None
        classes = [c for c in self.named(module, annotation) if isinstance(c, Class)]
        return Instance(classes[0]) if classes else None


MAPPINGS = {"dict", "defaultdict", "Mapping"}
CONTAINERS = MAPPINGS | {"list", "tuple", "set", "deque", "Sequence", "Iterable", "Iterator", "Collection"}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module or class, also inside `if`, `try` and `with`."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "handlers", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                yield from statements(getattr(node, inner, []))


def assigned(module: Module, node: ast.AST, method: Function | None = None) -> Iterator[tuple[str, Value]]:
    """The names that a statement assigns; in a method x of `self.x = ...`."""
    annotation, value = None, None
    if isinstance(node, ast.AnnAssign):
        targets, annotation, value = [node.target], node.annotation, node.value
    elif isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.With | ast.AsyncWith):
        targets = [item.optional_vars for item in node.items if item.optional_vars]
    elif isinstance(node, ast.For):
        targets = [node.target]
    else:
        return
    for target in targets:
        several = isinstance(target, ast.Tuple | ast.List)
        for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
            found = Value(module, annotation, None if several else value, method)
            if method and isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self":
                yield part.attr, found
            elif not method and isinstance(part, ast.Name):
                yield part.id, found


def _import(name: Imported) -> Any:
    """The class itself, None where its package is not installed."""
    try:
        module = importlib.import_module(name.module)
    except ImportError:
        return None
    return getattr(module, name.name or "", None)
