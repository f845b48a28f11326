"""Goes through our source and notes where it meets vLLM's."""

import ast
from dataclasses import dataclass
from typing import Any

from syntax.inference import Super, Types, member
from syntax.packages import Class, Elements, Function, FunctionNode, Instance, Module, Packages, Value

from vllm_dllm.patches.wrap import misfit, parameters

THEIRS = "vllm"

# What vLLM's worker asks of its model runner and ours does without, because it is never reached:
DONE_WITHOUT = {
    # LoRA, pooling and drafts are refused
    *("add_lora", "remove_lora", "pin_lora", "list_loras"),
    *("is_pooling_model", "pool", "_dummy_pooler_run", "take_draft_token_ids"),
    # vLLM's own warm-up, which DllmWorker leaves out; a step that is sampled later; pages set to zero
    *("_dummy_sampler_run", "sample_tokens", "_init_kv_zero_meta"),
}


@dataclass(frozen=True)
class Seam:
    place: str  # file:line
    what: str  # vLLM's name, or what is asked of it
    problem: str | None  # None: it fits

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f": {self.problem}" if self.problem else "")


class Looker(ast.NodeVisitor):
    """Goes through one module of ours, keeps what each name is, and notes where it meets vLLM."""

    def __init__(self, packages: Packages, module: Module, place: str, used: set[str], ours: list[Class]):
        self.packages = packages
        self.types = Types(packages)
        self.ours = ours  # all our classes: an object of vLLM's may be one of them
        self.module = module
        self.place = place
        self.used = used
        self.found: list[Seam] = []
        self.scopes: list[dict[str, Any]] = [{}]
        self.class_: Class | None = None
        self.wrapped = self._wrapped()

    def note(self, node: ast.AST, what: str, problem: str | None = None) -> None:
        self.found.append(Seam(f"{self.place}:{getattr(node, 'lineno', 0)}", what, problem))

    # ---- imports ----

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for name, imported in self.module.imported(node):
            things = self.packages.follow(imported)
            if imported.module.split(".")[0] == THEIRS:
                problem = None if things else "does not exist"
                self.note(node, f"{imported.module}.{imported.name}", problem)
            if things and len(self.scopes) > 1:
                self.scopes[-1][name] = things[0]

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == THEIRS:
                self.note(node, alias.name, None if self.packages.module(alias.name) else "does not exist")

    # ---- classes and functions of ours ----

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self.class_ = self.class_, Class(self.module, node)
        if any(_is_theirs(cls) for cls in self.class_.family):
            self._overrides(self.class_)
            self._stand_ins(self.class_)
        self.scopes.append({})
        self.generic_visit(node)
        self.scopes.pop()
        self.class_ = outer

    def _overrides(self, cls: Class) -> None:
        bases = [base for base in cls.bases if isinstance(base, Class)]
        for name, own in cls.own.items():
            if not isinstance(own, Function):
                continue
            theirs = [f for base in bases if isinstance(f := base.member(name), Function)]
            for function in theirs:
                if _is_theirs(function.owner):
                    problem = misfit(own.signature, function.signature)
                    self.note(own.node, f"{function.owner}.{name} is overridden", problem and f"ours {problem}")
            if not theirs and name not in self.used and not name.startswith("__"):
                what = f"{cls.name}.{name} overrides nothing"
                self.note(own.node, what, f"{' and '.join(map(str, bases))} has none, and ours never calls it")
        for base in cls.family:
            for name, function in base.own.items() if _is_theirs(base) else ():
                if isinstance(function, Function) and function.decorated("abstractmethod"):
                    final = cls.member(name)
                    missing = isinstance(final, Function) and final.decorated("abstractmethod")
                    self.note(cls.node, f"{base}.{name} is wanted", "ours has none" if missing else None)

    def _stand_ins(self, cls: Class) -> None:
        """An object of ours in an attribute of vLLM's class: what vLLM's methods read of it, if they still run."""
        replaced = {name for name in cls.own if f"super().{name}(" not in ast.unparse(cls.node)}
        for attribute, value in cls.own.items():
            ours = self.types.thing(value) if isinstance(value, Value) else None
            if not isinstance(ours, Instance) or any(_is_theirs(c) for c in ours.of.family):
                continue
            for base in filter(_is_theirs, cls.family):
                methods = [f for name, f in base.own.items() if isinstance(f, Function) and name not in replaced]
                reads = [n for f in methods for n in ast.walk(f.node) if isinstance(n, ast.Attribute)]
                asked = {n.attr for n in reads if ast.unparse(n.value) == f"self.{attribute}"}
                for name in sorted(asked - DONE_WITHOUT):
                    problem = None if ours.of.may_have(name) else f"{ours.of} has none"
                    self.note(cls.node, f"{base} reads {attribute}.{name}", problem)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for owner, original in self.wrapped.get(node.name, [(None, None)]) if not self.class_ else [(None, None)]:
            self.scopes.append(self._arguments(node, owner, original))
            self.generic_visit(node)
            self.scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.scopes.append({a.arg: None for a in node.args.args})
        self.generic_visit(node)
        self.scopes.pop()

    def _arguments(self, node: FunctionNode, owner: Any, original: Function | None) -> dict[str, Any]:
        """What a function's parameters are: by annotation, or, in a patch, as vLLM's own function says."""
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        types: dict[str, Any] = {a.arg: None for a in (arguments.vararg, arguments.kwarg) if a}
        for argument in every:
            types[argument.arg] = self.packages.annotated(self.module, argument.annotation)
        if (
            self.class_
            and every
            and not {"staticmethod", "classmethod"} & {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
        ):
            types[every[0].arg] = Instance(self.class_)
        if original is not None:
            types[every[0].arg] = original
            theirs = {a.arg: a.annotation for a in [*original.node.args.args, *original.node.args.kwonlyargs]}
            for argument in every[1:]:
                types[argument.arg] = self.packages.annotated(original.module, theirs.get(argument.arg))
            if isinstance(owner, Class) and "self" in types:
                types["self"] = Instance(owner)
        return types

    # ---- patches ----

    def _wrapped(self) -> dict[str, list[tuple[Any, Function]]]:
        """The functions of this module that wrap vLLM's, which they are found by `wrap(owner, name, patch)`."""
        patches: dict[str, list[tuple[Any, Function]]] = {}
        for node in ast.walk(self.module.tree):
            if isinstance(node, ast.ImportFrom) and len(self.scopes) == 1:
                self.scopes[0] |= {n: t[0] for n, i in self.module.imported(node) if (t := self.packages.follow(i))}
        calls = [node for node in ast.walk(self.module.tree) if isinstance(node, ast.Call) and len(node.args) == 3]
        for node in (node for node in calls if isinstance(node.args[1], ast.Constant)):
            if ast.unparse(node.func) == "wrap":
                owner, name, patch = node.args
                of, function = self.type_of(owner), self.module.names.get(ast.unparse(patch), [None])[0]
                original = member(of, ast.literal_eval(name))
                what = f"{of}.{ast.literal_eval(name)} is wrapped"
                if not isinstance(original, Function) or not isinstance(function, Function):
                    self.note(node, what, "is no function there")
                    continue
                problem = misfit(parameters(function.signature), original.signature)
                if function.is_coroutine != original.is_coroutine:
                    problem = f"is {'a' if original.is_coroutine else 'no'} coroutine function"
                self.note(node, what, problem)
                patches.setdefault(function.node.name, []).append((of, original))
            if ast.unparse(node.func) == "add":
                of, name = self.type_of(node.args[0]), ast.literal_eval(node.args[1])
                self.note(node, f"{of}.{name} is added", "it has one already" if member(of, name) else None)
        return patches

    # ---- expressions ----

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
            for part, of_part in zip(target.elts, value.elts, strict=True):
                self._assign(part, of_part)
        elif isinstance(target, ast.Name):
            self.scopes[-1][target.id] = self.type_of(value)
        else:
            self._elements(target, value)
            self.visit(target)

    def _elements(self, target: ast.expr, container: ast.expr) -> None:
        """What a loop's variables are, or those that a container is taken apart into."""
        of = self.type_of(container)
        for part in ast.walk(target):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                self.scopes[-1][part.id] = Instance(of.of) if isinstance(of, Elements) else None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.scopes[-1][node.target.id] = self.packages.annotated(self.module, node.annotation)
        else:
            self.visit(node.target)

    def visit_For(self, node: ast.For) -> None:
        self._elements(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._elements(node.target, node.iter)
        self.generic_visit(node)

    def _visit_parts(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        """What a comprehension loops over comes first: its variables are known in the rest."""
        for part in node.generators:
            self.visit(part)
        for name in ("key", "value", "elt"):
            if hasattr(node, name):
                self.visit(getattr(node, name))

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_parts

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        of = self.type_of(node.value)
        if isinstance(of, Super) and any(_is_theirs(c) for base in of.bases for c in base.family):
            has = any(base.may_have(node.attr) for base in of.bases)
            self.note(node, f"super().{node.attr}", None if has else f"{' and '.join(map(str, of.bases))} has none")
        elif isinstance(of, Instance | Class):
            cls = of.of if isinstance(of, Instance) else of
            theirs = [c for c in cls.family if _is_theirs(c)]
            if theirs and not any(node.attr in c.own for c in cls.family if not _is_theirs(c)):
                has = cls.may_have(node.attr) or any(node.attr in c.own for c in self.ours if cls in c.family)
                self.note(node, f"{theirs[0]}.{node.attr}", None if has else "does not exist")
        elif isinstance(of, Module) and of.name.split(".")[0] == THEIRS:
            # a name that a module makes when it is asked (vllm.envs) is written down there for type checkers
            self.note(node, f"{of}.{node.attr}", None if of.all(node.attr) else "does not exist")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self.type_of(node.func)
        takes, name = None, ""
        if isinstance(called, Class) and any(_is_theirs(c) for c in called.family):
            takes, name = called.constructor, str(called)
        elif isinstance(called, Function) and called.module.name.split(".")[0] == THEIRS:
            takes, name = called.signature, f"{called.owner or called.module}.{called.node.name}"
        if takes is None:
            return
        given: list[Any] = [None for a in node.args if not isinstance(a, ast.Starred)]
        bound = isinstance(called, Class) or (self._is_bound(node.func, called))
        if bound and next(iter(takes.parameters), "") in ("self", "cls"):
            given.insert(0, None)
        keywords = {k.arg: None for k in node.keywords if k.arg}
        whole = all(k.arg for k in node.keywords) and not any(isinstance(a, ast.Starred) for a in node.args)
        bind = takes.bind if whole else takes.bind_partial
        try:
            bind(*given, **keywords)
            self.note(node, f"{name}(...) is called")
        except TypeError as e:
            self.note(node, f"{name}(...) is called", f"{e}; it takes {takes}")

    def _is_bound(self, func: ast.expr, called: Function) -> bool:
        """Whether `self` is not among the arguments of a call."""
        if not isinstance(func, ast.Attribute) or called.owner is None:
            return False
        return isinstance(self.type_of(func.value), Instance | Super)

    def type_of(self, node: ast.expr) -> Any:
        return self.types.of(node, self.module, self.scopes, self.class_)


def _is_theirs(cls: Any) -> bool:
    return isinstance(cls, Class) and cls.package == THEIRS
