"""The example of another package, as pip would install it."""

from pathlib import Path

from common import GOLDEN, ROOT

EXAMPLE = ROOT / "examples" / "third_party_policy"
PATHS = [str(ROOT / "checkpoints"), str(ROOT / "tests"), str(GOLDEN), str(ROOT / "tests" / "caching")]
SLIDING, ATTENDED, SHARE = (
    "sliding = sliding_policy:Sliding",
    "attended = attended_policy:MostAttended",
    "share = share_rule:Share",
)


def install(folder: Path, entry_points: str, module: str | None = None, rules: str = "") -> None:
    """What pip leaves of a package in `folder`: its metadata and its modules."""
    info = folder / "sliding_policy-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sliding-policy\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        f"[vllm_dllm.cache_policies]\n{entry_points}\n[vllm_dllm.unmasking_rules]\n{rules}\n"
    )
    for file in EXAMPLE.glob("*_*.py"):
        (folder / file.name).write_text(file.read_text())
    if module is not None:
        (folder / "sliding_policy.py").write_text(module)
