"""Where this package touches vLLM, and whether a vLLM is as it expects there.

    python tools/seams.py                        the installed vLLM
    python tools/seams.py vllm-0.33.0.whl        a wheel's, or an unpacked one's in a folder; nothing of it is imported
    python tools/seams.py --list                 every seam, whether it fits or not
    python tools/seams.py --changed WHEEL        what of vLLM's functions has other words there than in the installed one

The seams are found in the package's own source: names imported from vLLM; attributes of its objects, as far as types
are written down; arguments of calls; methods that our classes override, or that vLLM's abstract ones want; functions
that patches wrap. Exit status 1 if something does not fit. What fits may still mean something else: --changed is what
to read then.
"""

import argparse
import ast
import sys
from collections.abc import Iterable
from pathlib import Path

from syntax.looker import THEIRS, Looker, Seam
from syntax.packages import Class, Function, Packages, Read, installed, reader

ROOT = Path(__file__).parent.parent
OURS = "vllm_dllm"


def our_files() -> dict[str, Path]:
    """Our modules by name; patches/ lies beside the package, whose part it is."""
    files = {}
    for folder, package in ((ROOT / "vllm_dllm", OURS), (ROOT / "patches", f"{OURS}.patches")):
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            if inner[0] != "patches" or folder.name == "patches":
                files[".".join([package, *(part for part in inner if part != "__init__")])] = file
    return files


def seams(theirs: Read, files: dict[str, Path] | None = None) -> list[Seam]:
    """All seams between our files and vLLM's, in the order of the files."""
    files = files or our_files()
    by_path = {}
    for name, file in files.items():
        path = name.replace(".", "/")
        by_path[f"{path}/__init__.py" if file.name == "__init__.py" else f"{path}.py"] = file
    packages = Packages({THEIRS: theirs, OURS: lambda path: by_path[path].read_text() if path in by_path else None})
    used = _names_used(files.values())
    modules = {file: module for name, file in files.items() if (module := packages.module(name))}
    ours = [thing for m in modules.values() for things in m.names.values() for thing in things]
    classes = [thing for thing in ours if isinstance(thing, Class)]
    found: list[Seam] = []
    for file, module in modules.items():
        place = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name
        looker = Looker(packages, module, place, used, classes)
        looker.visit(module.tree)
        found += looker.found
    return list(dict.fromkeys(found))


def _names_used(files: Iterable[Path]) -> set[str]:
    """Every attribute that our code reads, of whatever."""
    trees = [ast.parse(file.read_text()) for file in files]
    return {n.attr for t in trees for n in ast.walk(t) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}


def changed(found: list[Seam], before: Read, after: Read) -> list[str]:
    """Those functions at the seams that are written differently in two vLLMs."""

    def text(packages: Packages, name: str) -> str | None:
        function = packages.find(name)
        return ast.unparse(function.node) if isinstance(function, Function) else None

    old, new = Packages({THEIRS: before}), Packages({THEIRS: after})
    names = sorted({seam.what.split("(")[0].split()[0] for seam in found if seam.what.startswith(f"{THEIRS}.")})
    return [name for name in names if text(old, name) != text(new, name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "vllm", nargs="?", type=Path, help="a wheel, or a folder with `vllm/` in it; default: installed"
    )
    parser.add_argument("--list", action="store_true", help="print every seam")
    parser.add_argument(
        "--changed", action="store_true", help="print the functions that differ from the installed ones"
    )
    arguments = parser.parse_args()
    where = arguments.vllm or installed(THEIRS)
    found = seams(reader(where))
    if arguments.changed:
        print(*changed(found, reader(installed(THEIRS)), reader(where)), sep="\n")
    unfit = [seam for seam in found if seam.problem]
    for seam in found if arguments.list else unfit:
        print(seam)
    print(f"{len(found)} seams with {where}, {len(unfit)} do not fit")
    return 1 if unfit else 0


if __name__ == "__main__":
    sys.exit(main())
