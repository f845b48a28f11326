"""What the parts found: a JSON file for each, all of them in report.json, and tables of it in report.md."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def write_part(out: Path, group: str, name: str, found: dict) -> None:
    (out / "parts").mkdir(exist_ok=True)
    _file(out, group, name).write_text(json.dumps(found, indent=1) + "\n")


def read_part(out: Path, group: str, name: str) -> dict:
    """What a part of this run found, or {} if it has not been run."""
    path = _file(out, group, name)
    return json.loads(path.read_text()) if path.exists() else {}


def _file(out: Path, group: str, name: str) -> Path:
    return out / "parts" / f"{group}.{name}.json"


def collect(out: Path, mode: str, wanted: dict[str, list[str]]) -> dict:
    """Everything found so far, into report.json and report.md."""
    groups: dict[str, dict[str, Any]] = {
        group: {name: read_part(out, group, name) or {"error": "not run"} for name in names}
        for group, names in wanted.items()
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    machine = {"device": device} | {name: version(name) for name in ("torch", "triton", "vllm")}
    found = {"mode": mode, "machine": machine, "groups": groups}
    (out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "report.md").write_text(markdown(found) + "\n")
    return found


def markdown(found: dict) -> str:
    machine = ", ".join(f"{k} {v}" if k != "device" else v for k, v in found["machine"].items())
    tables = [f"{machine}.", status_table(found["groups"])]
    for table in (golden_table, sync_table, floor_table, pass_table, policy_table, kernel_table):
        if lines := table(found["groups"]):
            tables.append("\n".join(lines))
    return "\n\n".join(tables)


def status_table(groups: dict) -> str:
    lines = ["| part | seconds | |", "| --- | ---: | --- |"]
    for group, parts in groups.items():
        for name, part in parts.items():
            lines.append(f"| {group}/{name} | {part.get('seconds', '')} | {_one_line(failure(part)) or 'done'} |")
    return "\n".join(lines)


def failure(part: dict) -> str:
    """What is wrong with a part, or nothing."""
    return part.get("error", "") or ("" if part.get("ok", True) else f"differs: {part['differing'][0]}")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:160]


def _good(groups: dict, name: str) -> list[tuple[str, dict]]:
    """(group, part) of every part of that name that has been run."""
    return [(g, parts[name]) for g, parts in groups.items() if name in parts and "error" not in parts[name]]


def golden_table(groups: dict) -> list[str]:
    lines = []
    for group, together in _good(groups, "together"):
        alone = groups[group].get("alone", {}).get("policies", {})
        for policy, counts in sorted(together["policies"].items()):
            lines.append(f"| {group} | `{policy}` | {_equal(counts)} | {_equal(alone.get(policy))} |")
    return lines and [
        "| golden cases | policy | answers equal 16 at a time, and their passes | alone |",
        "| --- | --- | ---: | ---: |",
        *lines,
    ]


def _equal(counts: dict | None) -> str:
    return f"{counts['answers']} of {counts['cases']}, {counts['equal']}" if counts else ""


def sync_table(groups: dict) -> list[str]:
    lines = []
    for _, part in _good(groups, "where"):
        for policy, places in part["policies"].items():
            for place, times in places["a_step"].items():
                lines.append(f"| `{policy}` | {place} | {times:.2f} |")
    return lines and ["| policy | waits for the device at | times a step |", "| --- | --- | ---: |", *lines]


def floor_table(groups: dict) -> list[str]:
    lines = []
    for _, part in _good(groups, "device"):
        lines += [f"| {name} | {value:.4g} |" for name, value in part.items() if name != "seconds"]
    for _, part in _good(groups, "loop"):
        lines.append(f"| plain loop, canvas {part['canvas']}, ms a pass | {part['ms']:.2f} |")
    return lines and ["| measured on this device | |", "| --- | ---: |", *lines]


def pass_table(groups: dict) -> list[str]:
    lines = []
    for _, part in _good(groups, "passes"):
        for row in part["rows"]:
            floor = f"{row['floor_ms']:.2f} | {row['ms'] / row['floor_ms']:.2f}" if row.get("floor_ms") else " | "
            lines.append(
                f"| {row['pass']} | {row['requests']} | {row['ms']:.2f} | {floor} | {row['schedule_ms']:.2f} "
                f"| {row['execute_ms']:.2f} | {row['update_ms']:.2f} | {row['rest_ms']:.2f} |"
            )
    head = "| pass | requests | ms | floor | of floor | scheduling | worker | updating | front end |"
    return lines and [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *lines]


def policy_table(groups: dict) -> list[str]:
    lines = []
    plain = next((part for _, part in _good(groups, "loop")), None)
    one = 1000 / plain["ms"] if plain else None  # tokens/s of the plain loop at one token a pass
    for parts in groups.values():
        for name, part in parts.items():
            if not name.startswith("requests") or "error" in part:
                continue
            for r in part["rows"]:
                times = f"{r['rate'] / one / part['tokens_a_pass']:.1f} | {r['rate'] / one:.1f}" if one else " | "
                cut = "" if r["finished"] else " (cut)"
                lines.append(
                    f"| `{r['policy']}` | {r['requests']} | {r['rate']:.0f}{cut} | {times} | {r['ms_step']:.2f} "
                    f"| {r['positions_a_pass']:.0f} | {r['host']:.0%} |"
                )
    head = (
        "| policy | requests | tokens/s | of plain | of plain, one token a pass | ms/step | positions a pass | host |"
    )
    return lines and [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *lines]


def kernel_table(groups: dict) -> list[str]:
    lines = []
    for _, part in _good(groups, "profile"):
        for row in part["rows"]:
            lines.append(f"| **{row['pass']}, {row['requests']}** | {row['launches']:.0f} | {row['device_ms']:.3f} |")
            lines.append(f"| from one kernel to the next | | {row['between_ms']:.3f} |")
            lines.append(f"| waiting for the host | | {row['idle_ms']:.3f} |")
            lines += [f"| {k['name'][:70]} | {k['launches']:.0f} | {k['ms']:.3f} |" for k in row["kernels"]]
    return lines and ["| kernels | launches a step | device ms a step |", "| --- | ---: | ---: |", *lines]
