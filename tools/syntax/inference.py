"""What an expression is, as far as types are written down around it."""

import ast
import builtins
from dataclasses import dataclass
from typing import Any

from syntax.packages import Class, Elements, Function, Imported, Instance, Module, Packages, Value

DEPTH = 8  # of names that are looked up through others; `self.x = self.x.y` would go on for ever


@dataclass(frozen=True)
class Super:
    """`super()` in a class with these bases."""

    bases: list[Class]


class Types:
    def __init__(self, packages: Packages):
        self.packages = packages
        self.depth = 0

    def of(self, node: ast.expr, module: Module, scopes: list[dict[str, Any]], class_: Class | None = None) -> Any:
        """A Module, Class, Function, Instance, Elements or Super; None where nobody says.

        `scopes` have what is known of local names, the innermost last.
        """
        if self.depth > DEPTH:
            return None
        self.depth += 1
        try:
            return self._of(node, module, scopes, class_)
        finally:
            self.depth -= 1

    def _of(self, node: ast.expr, module: Module, scopes: list[dict[str, Any]], class_: Class | None) -> Any:
        if isinstance(node, ast.Name):
            for scope in reversed(scopes):
                if node.id in scope:
                    return self.thing(scope[node.id])
            things = module.all(node.id) if not hasattr(builtins, node.id) else []
            return self.thing(things[0]) if things else None
        if isinstance(node, ast.Attribute):
            return self.thing(member(self.of(node.value, module, scopes, class_), node.attr))
        if isinstance(node, ast.Await):
            return self.of(node.value, module, scopes, class_)
        if isinstance(node, ast.Subscript):
            container = self.of(node.value, module, scopes, class_)
            return Instance(container.of) if isinstance(container, Elements) else None
        if isinstance(node, ast.Call):
            return self._called(node, module, scopes, class_)
        return None

    def _called(self, node: ast.Call, module: Module, scopes: list[dict[str, Any]], class_: Class | None) -> Any:
        name = ast.unparse(node.func)
        if name == "super" and class_:
            return Super([base for base in class_.bases if isinstance(base, Class)])
        if name == "type" and len(node.args) == 1:
            of = self.of(node.args[0], module, scopes, class_)
            return of.of if isinstance(of, Instance) else None
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("values", "get", "pop", "copy"):
            container = self.of(node.func.value, module, scopes, class_)
            if isinstance(container, Elements):
                return container if node.func.attr in ("values", "copy") else Instance(container.of)
        called = self.of(node.func, module, scopes, class_)
        if isinstance(called, Class):
            return Instance(called)
        return self.packages.annotated(called.module, called.node.returns) if isinstance(called, Function) else None

    def thing(self, thing: Any) -> Any:
        """What a member of a class or module is when it is read."""
        if isinstance(thing, Value):
            found = self.packages.annotated(thing.module, thing.annotation)
            if found is None and thing.value is not None:
                scope = self._parameters(thing.function) if thing.function else {}
                found = self.of(thing.value, thing.module, [scope])
            return found
        if isinstance(thing, Function) and thing.decorated("property", "cached_property"):
            return self.packages.annotated(thing.module, thing.node.returns)
        return None if isinstance(thing, Imported) else thing

    def _parameters(self, function: Function) -> dict[str, Any]:
        arguments = function.node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        types = {a.arg: self.packages.annotated(function.module, a.annotation) for a in every}
        if function.owner and "self" in types:
            types["self"] = Instance(function.owner)
        return types


def member(of: Any, name: str) -> Any:
    """A class's or module's member, as Class.member and Module.all give it."""
    if isinstance(of, Instance | Class):
        return (of.of if isinstance(of, Instance) else of).member(name)
    if isinstance(of, Super):
        return next((found for base in of.bases if (found := base.member(name))), None)
    if isinstance(of, Module):
        return next(iter(of.all(name)), None)
    return None
