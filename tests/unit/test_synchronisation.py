"""Where a pass waits for the device, read from the source: nowhere but in the places that are named here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import ROOT

PACKAGE = ROOT / "vllm_dllm"
PATH_OF_A_PASS = ("worker/*.py", "probes/*_worker.py", "attention_maps/*.py", "attention/*.py", "models/llama.py", "models/*/model.py",
                  "models/*/*_kernel.py")  # fmt: skip
WAITS = {"item", "cpu", "tolist", "nonzero", "synchronize", "multinomial", "is_nonzero", "argwhere", "masked_select"}
ASKED = {"any", "all", "equal", "allclose"}  # wait where their answer decides something

ALLOWED = {
    # the copy out of this pinned buffer two fills ago: ended long since, but for passes that a probe widens often
    ("worker/buffers.py", "StepBuffers.fill", "self.copied[self.turn].synchronize()"),
    # the one copy back
    ("worker/host_copy.py", "HostCopy.arrays", "self.done.synchronize()"),
    # on the CPU alone
    ("worker/readout_reference.py", "_read", "sound.all()"),
    ("worker/readout_reference.py", "_most_likely", "(token == mask_id).nonzero()"),
    # Elastic-Cache's decision, once a layer
    ("probes/drift_worker.py", "DriftWorker.after",
     "as_on_first_rank(similarity(self.old, now, self.tracked_queries)).tolist()"),
    # what probes measured, once a pass
    ("probes/drift_worker.py", "DriftWorker.signals", "torch.stack(self.masses, 1).cpu()"),
    ("probes/rollout_worker.py", "RolloutWorker.signals",
     "rollout_importance(self.forward.attention, reversed(self.layers), self.forward.tensor(at), self.query_set)"
     ".cpu()"),
    # sizes of images, which stay on the host (keep_on_cpu)
    ("models/llada_v/model.py", "LlavaLLaDAModelLM.embed_multimodal", "sizes.tolist()"),
    # arrays of NumPy
    ("worker/graphs.py", "Graphs.choose", "(counts == counts[0]).all()"),
    ("worker/readout.py", "_places", "flags.nonzero()"),
    ("worker/readout.py", "_groups", "read_starts.tolist()"),
    ("worker/layerwise.py", "LayerwiseForward._widen", "np.diff(now.query_starts).tolist()"),
    ("attention_maps/query_set.py", "QuerySet.__init__", "np.cumsum(counts).tolist()"),
    ("attention_maps/query_set.py", "QuerySet.__init__", "lengths.tolist()"),
}  # fmt: skip
# at start
BEFORE_ANY_PASS = {("attention_maps/keys.py", "why_unreadable")}


def waits(source: str) -> Iterator[tuple[str, str]]:
    """(function or method, call) of all calls that wait for the device, if what they are called on is there."""

    def visit(node: ast.AST, scope: tuple[str, ...], decides: bool) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope, decides = (*scope, node.name), False
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in WAITS or name in ASKED and decides:
                yield ".".join(scope), ast.unparse(node)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    condition = field in ("test", "ifs") or isinstance(node, ast.BoolOp)
                    condition |= isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
                    condition |= isinstance(node, ast.Call) and ast.unparse(node.func) in ("bool", "int", "float")
                    # what a condition's own parts are made of does not decide, but `x.any() > 0` and `not x.any()` do
                    passed = decides and isinstance(node, ast.BoolOp | ast.UnaryOp | ast.Compare)
                    yield from visit(child, scope, condition or passed)

    yield from visit(ast.parse(source), (), False)


@pytest.mark.parametrize(
    "source, found",
    [
        ("def f(x):\n    if x.any(): pass", ["x.any()"]),
        ("def f(x):\n    return y if not x.all() else z", ["x.all()"]),
        ("def f(x):\n    return a or x.any()", ["x.any()"]),
        ("def f(x):\n    return [i for i in y if x[i].any()]", ["x[i].any()"]),
        ("def f(x):\n    assert x.any() > 0", ["x.any()"]),
        ("def f(x):\n    return int(x.any())", ["x.any()"]),
        ("def f(x):\n    return x.any(), any(x), x.all(-1)", []),
        ("def f(x):\n    return x[0].item() + g(y.cpu())", ["x[0].item()", "y.cpu()"]),
        ("def f(x):\n    return torch.nonzero(x).tolist()", ["torch.nonzero(x).tolist()", "torch.nonzero(x)"]),
    ],
)
def test_the_walk_sees_what_waits(source, found):
    assert list(waits(source)) == [("f", call) for call in found]


def test_a_pass_waits_for_the_device_in_the_named_places_alone():
    files: list[Path] = [file for pattern in PATH_OF_A_PASS for file in sorted(PACKAGE.glob(pattern))]
    assert len(files) > 15
    found = {(str(file.relative_to(PACKAGE)), scope, call) for file in files for scope, call in waits(file.read_text())}
    assert {f for f in found if f[:2] not in BEFORE_ANY_PASS} == ALLOWED
