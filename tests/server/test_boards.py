"""boards/: what the Grafana dashboard and the alert rules ask for is there, in a Prometheus that scrapes the server."""

import re
import shutil
import subprocess
import sys
import time

import httpx
import pytest
import yaml
from common import ROOT
from served import UNSURE, text_prompt
from server_process import free_port

BOARDS = ROOT / "boards"
sys.path.append(str(BOARDS))
import dashboard  # noqa: E402

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="no `prometheus` (Debian's package) here"
)


def queries() -> dict[str, str]:
    """Every query of the dashboard, by panel and legend."""
    panels = [panel for panel in dashboard.dashboard()["panels"] if panel["type"] != "row"]
    return {f"{panel['title']}, {t['legendFormat']}": t["expr"] for panel in panels for t in panel["targets"]}


def rules() -> list[dict]:
    return yaml.safe_load((BOARDS / "alerts.yml").read_text())["groups"][0]["rules"]


def ask_a_few(server) -> None:
    with server.client() as client:
        for cache in ("none", "entropy", "dual"):
            xargs = {"dllm_cache": cache, "dllm_horizon": 32}
            client.completions.create(
                model=server.model, prompt=text_prompt(UNSURE), max_tokens=64, extra_body={"vllm_xargs": xargs}
            )


def test_the_dashboards_file_is_made_from_its_script():
    assert dashboard.FILE.read_text() == dashboard.text(), "run `python boards/dashboard.py`"


def test_every_metric_that_is_asked_for_is_at_the_servers_metrics(server):
    ask_a_few(server)
    there = set(re.findall(r"^([\w:]+)(?:{| )", httpx.get(server.url + "/metrics", timeout=30).text, re.MULTILINE))
    asked = set(re.findall(r"vllm(?:_dllm)?:\w+", " ".join((*queries().values(), *(r["expr"] for r in rules())))))
    assert asked and not asked - there


def test_the_page_of_boards_names_every_alert():
    page = (ROOT / "docs" / "boards.md").read_text()
    assert not [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in page]


@needs_prometheus
def test_alerts_fire_when_they_should():
    done = subprocess.run(["promtool", "test", "rules", BOARDS / "alerts_test.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_every_panel_shows_data_and_every_rule_loads_in_a_real_prometheus(server, tmp_path):
    config = yaml.safe_load((BOARDS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(BOARDS / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.url.removeprefix("http://")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={url[7:]}"], stdout=log, stderr=log)
    try:

        def get(path: str, **params: str) -> dict:
            return httpx.get(f"{url}/api/v1/{path}", params=params, timeout=30).json()["data"]

        def answers(expr: str) -> list[float]:
            return [float(found["value"][1]) for found in get("query", query=expr)["result"]]

        def scraped() -> bool:
            try:
                return answers("vllm_dllm:passes_total") != []
            except httpx.TransportError:
                return False

        server.wait(scraped, "the first scrape")
        ask_a_few(server)
        time.sleep(4)  # a scrape or two behind the last answer, and one of the rules

        empty = []
        for name, expr in queries().items():
            filled = expr.replace("$__rate_interval", "1m").replace("$model", ".*").replace("$engine", ".*")
            found = answers(filled)
            if not found or any(value != value for value in found):
                empty.append((name, filled, found))
        assert not empty
        for panel in ("passes/s", "computed"):
            expr = next(e for name, e in queries().items() if name.endswith(panel))
            assert (
                answers(re.sub(r"\$\w+?(interval)", "1m", expr).replace("$model", ".*").replace("$engine", ".*"))[0] > 0
            )

        (group,) = get("rules")["groups"]
        assert [r["name"] for r in group["rules"]] == [r["alert"] for r in rules()]
        assert {r["health"] for r in group["rules"]} == {"ok"}
    finally:
        process.terminate()
        process.wait(30)
