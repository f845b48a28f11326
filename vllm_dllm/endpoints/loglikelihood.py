"""POST /v1/dllm/loglikelihood: how likely targets are behind their prompts (docs/likelihood.md)."""

import asyncio
import time
from argparse import Namespace
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.serve.utils.api_utils import validate_json_request, with_cancellation
from vllm.outputs import RequestOutput
from vllm.utils import random_uuid

from vllm_dllm.likelihood.asked import Asked
from vllm_dllm.likelihood_requests import Likelihoods, Sent, token_ids
from vllm_dllm.options import SettingError
from vllm_dllm.validation import Refusal, shown

router = APIRouter()
ROOM = 1 << 28  # positions of masks that one call may have drawn


class LoglikelihoodRequest(BaseModel):
    """Its fields are those of `vllm_dllm.loglikelihood`, which checks them; a pair may be an object, too."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    pairs: Any = None
    estimator: Any = "chain"
    masks: Any = None
    mc_num: Any = None
    strata: Any = None
    seed: Any = None
    cfg_scale: Any = None
    greedy: Any = False

    def asked(self) -> Asked:
        for name, value in (self.model_extra or {}).items():
            known = ", ".join(type(self).model_fields)
            raise SettingError(f"{name}={shown(value)} is not a field; there are {known}", name)
        return Asked(self.estimator, self.masks, self.mc_num, self.strata, self.seed, self.cfg_scale, self.greedy)

    def as_pairs(self) -> list[Any]:
        if not isinstance(self.pairs, list):
            raise SettingError(f"pairs={shown(self.pairs)} is not allowed: it must be a list of pairs", "pairs")
        return [(p.get("prompt"), p.get("target")) if isinstance(p, dict) else p for p in self.pairs]


@router.post("/v1/dllm/loglikelihood", dependencies=[Depends(validate_json_request)])
@with_cancellation
async def loglikelihood(request: LoglikelihoodRequest, raw_request: Request) -> JSONResponse:
    state = raw_request.app.state
    if (unknown := await state.openai_serving_models.registry.check_model(request.model)) is not None:
        return JSONResponse(unknown.model_dump(), unknown.error.code)
    request_id = f"ll-{raw_request.headers.get('X-Request-Id') or random_uuid()}"
    engine: EngineClient = state.engine_client
    try:
        asked = request.asked()
        pairs = []
        for i, pair in enumerate(request.as_pairs()):
            pairs.append(token_ids(engine.vllm_config, engine.renderer.tokenizer, i, pair))
            await asyncio.sleep(0)  # other clients' turn
        if (drawn := asked.drawn([target for _, target in pairs])) > ROOM:
            raise SettingError(
                f"mc_num={asked.draws} is not allowed with {len(pairs)} pairs whose masks have {drawn} positions: a call may "
                f"have {ROOM}",
                "mc_num",
            )
        likelihoods = await asyncio.to_thread(Likelihoods, engine.vllm_config, pairs, asked)
    except SettingError as e:
        raise Refusal.of(e) from e
    results = likelihoods.results(await _outputs(engine, request_id, likelihoods.requests))
    scored = sum(len(pair.prompt) + len(pair.target) for pair in likelihoods.pairs)
    data = [{"index": i} | {k: v for k, v in asdict(r).items() if v is not None} for i, r in enumerate(results)]
    return JSONResponse(
        {
            "id": request_id,
            "object": "list",
            "created": int(time.time()),
            "model": request.model or state.openai_serving_models.model_name(),
            "data": data,
            "usage": {"prompt_tokens": scored, "completion_tokens": 0, "total_tokens": scored},
        }
    )


async def _outputs(engine: EngineClient, request_id: str, requests: list[Sent]) -> list[RequestOutput]:
    """Each request's last output. They run together; where one fails, or the client goes away, all are aborted."""

    async def output(i: int, sent: Sent) -> RequestOutput:
        async for found in engine.generate(sent.prompt, sent.params, f"{request_id}-{i}"):
            last = found
        return last

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(output(i, sent)) for i, sent in enumerate(requests)]
    except* Exception as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


class LoglikelihoodEndpoint:
    """As vLLM's `EndpointPlugin` wants it."""

    name = "dllm_loglikelihood"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(router)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """vLLM's own state is enough."""
