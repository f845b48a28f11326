"""The Grafana dashboard, boards/grafana.json: this package's metrics and vLLM's beside each other.

    python boards/dashboard.py            write it anew, after a change here

A panel is a title, what it says, its unit, and its queries. `$model` and `$engine` are the dashboard's variables,
`$__rate_interval` is Grafana's own.
"""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "grafana.json"
OF = '{model_name=~"$model",engine=~"$engine"}'
SOURCE = {"type": "prometheus", "uid": "${source}"}


def rate(metric: str, by: str = "", of: str = OF) -> str:
    return f"sum {by}{' ' if by else ''}(rate({metric}{of}[$__rate_interval]))"


def quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, {rate(metric + '_bucket', 'by (le)')})"


def mean(metric: str) -> str:
    return f"{rate(metric + '_sum')} / {rate(metric + '_count')}"


def quantiles(metric: str) -> dict[str, str]:
    return {"half of them": quantile(0.5, metric), "95 %": quantile(0.95, metric)}


COMPUTED, CACHELESS, ABSENT = (f"vllm_dllm:{what}_tokens_total" for what in ("computed", "cacheless", "absent"))
PASSES = "vllm_dllm:passes_total"

# row -> panels: title, description, unit, queries by what the legend calls them
ROWS: dict[str, list[tuple[str, str, str, dict[str, str]]]] = {
    "Answers": [
        (
            "Response tokens",
            "Tokens handed to clients, a second.",
            "short",
            {"tokens/s": rate("vllm:generation_tokens_total")},
        ),
        (
            "Requests",
            "In the engine now.",
            "short",
            {"running": f"sum (vllm:num_requests_running{OF})", "waiting": f"sum (vllm:num_requests_waiting{OF})"},
        ),
        (
            "Requests ended",
            "A second, by why: stop (end token or stop string), length, abort, error.",
            "reqps",
            {"{{finished_reason}}": rate("vllm:request_success_total", "by (finished_reason)")},
        ),
        (
            "Time of a request",
            "From its arrival to its last token.",
            "s",
            quantiles("vllm:e2e_request_latency_seconds"),
        ),
        (
            "Time to the first token",
            "Which a diffusion model may have long before the second one, or with it.",
            "s",
            quantiles("vllm:time_to_first_token_seconds"),
        ),
        ("Time in the queue", "Until a request's pages were free.", "s", quantiles("vllm:request_queue_time_seconds")),
    ],
    "Decoding": [
        ("Passes", "Forwards over positions of one request's canvas, a second.", "short", {"passes/s": rate(PASSES)}),
        (
            "Positions computed",
            "Share of what would have been computed without a cache. 100 %: the policy saves nothing.",
            "percentunit",
            {"computed": f"{rate(COMPUTED)} / {rate(CACHELESS)}"},
        ),
        (
            "Positions that did not exist",
            "Share of all canvases' positions that a horizon kept out of the passes.",
            "percentunit",
            {"absent": f"{rate(ABSENT)} / ({rate(ABSENT)} + {rate(CACHELESS)})"},
        ),
        (
            "Tokens a pass",
            "Positions unmasked: what the unmasking rule makes of the model's confidence.",
            "short",
            {"mean": mean("vllm_dllm:pass_unmasked_tokens")} | quantiles("vllm_dllm:pass_unmasked_tokens"),
        ),
        (
            "Passes of a request",
            "When it ended.",
            "short",
            {"mean": mean("vllm_dllm:request_passes")} | quantiles("vllm_dllm:request_passes"),
        ),
        (
            "Time of a pass",
            "Of one request: the time that requests were running in, over their passes.",
            "s",
            {"mean": f"{rate('vllm:request_inference_time_seconds_sum')} / {rate('vllm_dllm:request_passes_sum')}"},
        ),
    ],
    "Refreshes": [
        (
            "Pages marked stale",
            "A second, by why: what the policies recompute besides their own positions.",
            "short",
            {"{{reason}}": rate("vllm_dllm:stale_pages_total", "by (reason)")},
        ),
        (
            "Full passes",
            "Share of passes that computed the whole canvas.",
            "percentunit",
            {"full": f"{rate('vllm_dllm:full_passes_total')} / {rate(PASSES)}"},
        ),
        (
            "Postponed refreshes",
            "Share of passes that went on without a due refresh, because the step's token budget was spent.",
            "percentunit",
            {"postponed": f"{rate('vllm_dllm:postponed_refreshes_total')} / {rate(PASSES)}"},
        ),
    ],
    "Engine": [
        (
            "KV pages taken",
            "Each request holds those of its whole canvas from start to end.",
            "percentunit",
            {"taken": f"avg (vllm:kv_cache_usage_perc{OF})"},
        ),
        (
            "Tokens of a step",
            "As vLLM counts them.",
            "short",
            {"mean": mean("vllm:iteration_tokens_total")},
        ),
        (
            "Failed requests",
            "A minute: the model's output was not finite, or constraints left no token.",
            "short",
            {"failed/min": f"60 * {rate('vllm_dllm:failed_requests_total')}"},
        ),
    ],
}


def panel(number: int, place: tuple[int, int], title: str, text: str, unit: str, queries: dict[str, str]) -> dict:
    targets = [
        {"refId": chr(65 + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for i, (legend, expr) in enumerate(queries.items())
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "gridPos": {"x": 8 * place[0], "y": place[1], "w": 8, "h": 7},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def variable(name: str, label: str) -> dict[str, Any]:
    query = f"label_values({PASSES}, {'model_name' if name == 'model' else name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    panels: list[dict] = []
    y = 0
    for row, found in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row,
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                "panels": [],
            }
        )
        y += 1
        for i, one in enumerate(found):
            panels.append(panel(len(panels) + 1, (i % 3, y + 7 * (i // 3)), *one))
        y += 7 * -(-len(found) // 3)
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "vllm-dllm",
        "title": "vllm-dllm: diffusion decoding",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [source, variable("model", "Model"), variable("engine", "Engine")]},
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
