"""The rooms of the package are held apart: who may import whom, and whose words stand where."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import ROOT

PACKAGE = ROOT / "vllm_dllm"
# what knows nothing of vLLM, and what the worker may not reach
POLICIES = ("caching", "unmasking", "canvas", "frontier", "passes", "messages", "options", "probes.base", "decoding")
DECIDES = (
    *("caching", "unmasking", "catalogue", "settings", "decoding", "passes", "packing", "starter", "scheduler"),
    "validation",
)


def modules() -> dict[str, Path]:
    """Every module of ours by its name; patches/ is installed as vllm_dllm.patches."""
    found = {}
    for top, folder in (("vllm_dllm", PACKAGE), ("vllm_dllm.patches", ROOT / "patches")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[:1] == ("patches",):
                continue  # a link to the folder above
            found[".".join((top, *(p for p in parts if p != "__init__")))] = path
    return found


def imports(path: Path, own: str, inside_functions: bool = True) -> Iterator[str]:
    """The modules that a file imports, for its types alone too."""
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{own} imports by a relative name"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        stack += ast.iter_child_nodes(node)


def graph() -> dict[str, set[str]]:
    """Which of our modules each of ours imports. What a package's `__init__` does in functions is its callers' wish."""
    known = modules()
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, path in known.items():
        for target in imports(path, name, inside_functions=path.name != "__init__.py"):
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target and target != name:
                arrows[name].add(target)
    return arrows


GRAPH = graph()


def reached(start: str) -> dict[str, list[str]]:
    """Every module of ours that importing `start` reaches, with the way there."""
    ways = {start: [start]}
    stack = [start]
    while stack:
        name = stack.pop()
        for target in GRAPH[name]:
            if target not in ways:
                ways[target] = [*ways[name], target]
                stack.append(target)
    return ways


def is_in(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == f"vllm_dllm.{room}" or name.startswith(f"vllm_dllm.{room}.") for room in rooms)


def test_the_walk_sees_imports():
    assert "vllm_dllm.decoding" in GRAPH["vllm_dllm.scheduler"] and len(GRAPH) > 50


@pytest.mark.parametrize("name", [n for n in modules() if is_in(n, ("worker", "models"))])
def test_the_worker_reaches_nothing_that_decides(name):
    ways = {target: way for target, way in reached(name).items() if is_in(target, DECIDES)}
    assert not ways, f"{name} reaches {' and '.join(' -> '.join(w) for w in ways.values())}"


def test_a_workers_process_has_loaded_nothing_that_decides():
    code = (
        "import sys, vllm_dllm.worker.worker, vllm_dllm.worker.model_runner, vllm_dllm.probes.drift_worker\n"
        "print(*(m for m in sys.modules if m.startswith('vllm_dllm.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "vllm_dllm.worker.model_runner" in loaded
    assert not [m for m in loaded if is_in(m, DECIDES)]


@pytest.mark.parametrize("name", [n for n in modules() if is_in(n, POLICIES)])
def test_rules_and_policies_know_nothing_of_vllm(name):
    for target in reached(name):
        foreign = [i for i in imports(modules()[target], target) if i.split(".")[0] == "vllm"]
        assert not foreign, f"{name} reaches {foreign} through {' -> '.join(reached(name)[target])}"


def test_only_its_own_room_needs_the_evaluation_harness():
    room = ("lm_eval",)
    needs = {n for n, path in modules().items() if any(i.split(".")[0] == "lm_eval" for i in imports(path, n))}
    assert needs and all(is_in(name, room) for name in needs)
    outside = [name for name in GRAPH if not is_in(name, room) and any(is_in(t, room) for t in GRAPH[name])]
    assert not outside


def cycles(arrows: dict[str, set[str]]) -> list[list[str]]:
    found, state = [], {}

    def visit(name: str, way: list[str]) -> None:
        state[name] = "open"
        for target in sorted(arrows.get(name, ())):
            if state.get(target) == "open":
                found.append([*way[way.index(target) :], target])
            elif target not in state:
                visit(target, [*way, target])
        state[name] = "done"

    for name in sorted(arrows):
        if name not in state:
            visit(name, [name])
    return found


def test_there_is_no_circle():
    assert not cycles(GRAPH)


def test_there_is_no_circle_in_the_benchmarks():
    files = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}
    arrows = {
        name: {i.split(".")[0] for i in imports(path, name)} & set(files) - {name} for name, path in files.items()
    }
    assert any(arrows.values()) and not cycles(arrows)


# words of one method, and the files that may say them
WORDS = {
    r"drift|track(ed|_num)\b|[Ee]lastic": {"caching/elastic.py", "probes/drift.py", "probes/drift_worker.py"},
    r"rollout|inflate|cache_sigma|current_k": {"caching/d2.py", "probes/rollout.py", "probes/rollout_worker.py"},
}
# where policies and probes are listed by name
LISTS = {"caching/registry.py", "probes/__init__.py"}


@pytest.mark.parametrize("words", WORDS)
def test_a_methods_terms_stand_in_its_own_files_alone(words):
    said = {str(path.relative_to(PACKAGE)) for path in modules().values() if path.is_relative_to(PACKAGE)}
    said = {p for p in said if re.search(words, (PACKAGE / p).read_text())}
    assert said and said <= WORDS[words] | LISTS, said - WORDS[words] - LISTS
