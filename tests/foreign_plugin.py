"""Another vLLM plugin, which wraps the functions that ours wraps: below our patches, and once more above them.

It applies our patches itself, in reverse order. `install` leaves in a folder what pip would.
"""

import functools
import inspect
import os
import pkgutil
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent


def install(folder: Path) -> dict[str, str]:
    """The environment in which vLLM finds it, before ours."""
    info = folder / "foreign_plugin-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-plugin\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\nforeign = foreign_plugin:register\n")
    shutil.copy(__file__, folder)
    (folder / "wrapped.txt").write_text("\n".join(wrapped()))
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def wrapped() -> list[str]:
    """The functions of vLLM that our patches wrap, as in vllm.v1.engine.async_llm.AsyncLLM.generate."""
    sys.path.append(str(ROOT / "tools"))
    import seams
    from syntax.packages import installed, reader

    listed = [re.match(r"(\S+) is wrapped$", seam.what) for seam in seams.seams(reader(installed("vllm")))]
    found = sorted({match[1] for match in listed if match})
    assert "vllm.v1.engine.async_llm.AsyncLLM.generate" in found
    return found


def register() -> None:
    """The entry point: vLLM calls it in each of its processes."""
    paths = Path(__file__).with_name("wrapped.txt").read_text().split()
    for path in paths:
        assert not hasattr(pkgutil.resolve_name(path), "vllm_dllm_patch"), f"{path} is patched already"
        _wrap(path)
    patches = import_module("vllm_dllm.patches").__path__
    for name in sorted((module.name for module in pkgutil.iter_modules(patches)), reverse=True):
        if name not in ("wrap", "ray_cpu"):  # the second is for ranks of Ray alone
            import_module(f"vllm_dllm.patches.{name}").apply()
    for path in paths:
        _wrap(path)


def _wrap(path: str) -> None:
    owner_path, _, name = path.rpartition(".")
    owner = pkgutil.resolve_name(owner_path)
    kept = inspect.getattr_static(owner, name)
    function = getattr(kept, "__func__", kept)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    setattr(owner, name, type(kept)(wrapper) if isinstance(kept, staticmethod | classmethod) else wrapper)
