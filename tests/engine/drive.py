"""Requests added and stepped one by one."""

from prompts import params, token_ids


class Drive:
    """Requests through the engine's own add_request and step, as a server would send them."""

    def __init__(self, engine):
        self.engine, self.core = engine, engine.llm.llm_engine
        self.ids: dict[str, str] = {}  # ours -> the engine's
        self.finished: dict[str, list[int]] = {}
        self.steps = 0

    def add(self, name: str, prompt: dict, arguments: dict) -> None:
        self.ids[name] = self.core.add_request(name, prompt, params(**arguments))

    def step(self) -> None:
        for output in self.core.step():
            if output.finished:
                self.finished[output.request_id] = token_ids(output)
        self.steps += 1
        if self.steps % 7 == 0:
            self.engine.check_integrity()

    def run_out(self) -> None:
        while self.core.has_unfinished_requests():
            self.step()
        self.engine.check_idle()
