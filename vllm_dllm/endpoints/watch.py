"""The live page's HTTP: `/dllm`, and below `/v1/dllm/watch` what it shows, behind the server's API key."""

import asyncio
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient

from vllm_dllm import watch
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.catalogue import BLOCK_LENGTH, GEN_LENGTH, HORIZON, TRACE, WATCH
from vllm_dllm.engine_config import server_settings
from vllm_dllm.options import Option
from vllm_dllm.unmasking.registry import RULES
from vllm_dllm.watch import viewer
from vllm_dllm.watch.address import addresses
from vllm_dllm.watch.topics import FIRST, REQUEST

PAGE = Path(watch.__file__).parent / "page"
FOLLOWED = 8  # requests that one viewer may follow


def _allowed(request: Request) -> None:
    """A server that was not asked to has no such page."""
    if not server_settings(request.app.state.vllm_config).value(WATCH):
        raise HTTPException(404)


router = APIRouter(dependencies=[Depends(_allowed)])


@router.get("/dllm", include_in_schema=False)
async def page() -> FileResponse:
    """The page itself, which holds nothing of anybody's."""
    return FileResponse(PAGE / "index.html")


@router.get("/dllm/{name}", include_in_schema=False)
async def part(name: str) -> FileResponse:
    if name not in {path.name for path in PAGE.iterdir()}:
        raise HTTPException(404)
    return FileResponse(PAGE / name)


@router.get("/v1/dllm/watch/settings")
async def settings(request: Request) -> JSONResponse:
    """What a request may choose here, for the page's form."""
    config = request.app.state.vllm_config
    server = server_settings(config)
    usual, attention = server.defaults, server.traits.attention
    policies = [
        p for p in POLICIES.values() if attention in p.attention and (server.hidden_cache or not p.needs_hidden())
    ]
    rules = [r for r in RULES.values() if attention == "full" or not r.counts_response_blocks]
    general = [o for o in (BLOCK_LENGTH, HORIZON, GEN_LENGTH) if attention in o.attention]
    defaults = server.given | {BLOCK_LENGTH.key: usual.block_length}
    return JSONResponse(
        {
            "model": config.model_config.served_model_name,
            "mask": config.model_config.hf_config.mask_token_id,
            "chat": bool(_tokenizer(request).chat_template),
            "cache": usual.cache,
            "rule": usual.rule.option.name,
            "value": usual.rule_value,
            "policies": [{"name": p.name, "options": [_option(o, defaults) for o in p.options]} for p in policies],
            "rules": [_option(rule.option, defaults) for rule in rules],
            "general": [_option(o, defaults) for o in general],
        }
    )


def _option(option: Option, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": option.key,
        "name": option.name,
        "type": option.type.__name__,
        "default": given.get(option.key, option.default),
        "low": option.low,
        "high": option.high,
        "choices": option.choices,
        "help": option.help,
    }


@router.get("/v1/dllm/watch")
async def events(
    request: Request,
    first: bool = False,
    follow: list[str] = Query(default=[], max_length=FOLLOWED),  # noqa: B008
) -> StreamingResponse:
    """Lines of JSON until the viewer leaves: all running requests now and then; with `first` the canvases of the first
    few; the canvases of those whose id begins with one of `follow`."""
    topics = [*([FIRST] if first else []), *(REQUEST + name for name in follow)]
    lines = viewer.watch(addresses(request.app.state.vllm_config), topics, _text(request))
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


@router.get("/v1/dllm/watch/trace")
async def trace(request: Request, id: str) -> JSONResponse:
    """The line of the trace file that has this request, with its tokens' texts."""
    config = request.app.state.vllm_config
    path = server_settings(config).value(TRACE)
    line = path and await asyncio.to_thread(_find, path, id)
    if not line:
        raise HTTPException(
            404, f"id={id!r} is in no trace file: it must be that of a request that has ended, and {TRACE.flag} a file"
        )
    return JSONResponse(viewer.with_texts(line, set(), _text(request)))


def _find(path: str, request_id: str) -> dict[str, Any] | None:
    wanted = json.dumps({"request_id": request_id})[1:-1].encode()
    with open(path, "rb") as lines:
        for line in lines:
            if wanted in line and (found := json.loads(line))["request_id"] == request_id:
                return found
    return None


def _tokenizer(request: Request) -> Any:
    return request.app.state.engine_client.renderer.tokenizer


def _text(request: Request) -> Callable[[int], str]:
    """A token's text, special tokens by their names."""
    tokenizer = _tokenizer(request)
    return lambda token: tokenizer.decode([token])


class WatchEndpoint:
    """As vLLM's `EndpointPlugin` wants it."""

    name = "dllm_watch"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(router)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """vLLM's own state is enough."""
