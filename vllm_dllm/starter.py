"""How a waiting request starts: what it asks for, what it takes, and what it does from then on."""

from typing import NamedTuple

from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request

from vllm_dllm.constraints import Constraint
from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.engine_config import model_traits
from vllm_dllm.format_carrier import carrier_of
from vllm_dllm.given_text import GivenText, given_text
from vllm_dllm.images import Images
from vllm_dllm.loaded_formats import LoadedFormats
from vllm_dllm.models.ends import ends_of
from vllm_dllm.param_constraints import constraints_of
from vllm_dllm.running import Running
from vllm_dllm.scored import has_target, scoring_of
from vllm_dllm.settings import ServerSettings, Settings
from vllm_dllm.slots import Slots


class Asks(NamedTuple):
    """What a waiting request wants."""

    settings: Settings
    text: GivenText
    canvases: int  # one, or with guidance two
    length: int  # of each: prompt, response and what follows it
    first_pass: int  # the positions that its first pass must have room for


class Starter:
    """The scheduler's. `places` are requests that may run besides those that do, a second canvas counting as one;
    `budget` the positions that are left of a step's."""

    def __init__(
        self,
        config: VllmConfig,
        settings: ServerSettings,
        slots: Slots,
        images: Images,
        formats: LoadedFormats,
        recorded: bool,
    ):
        self.chunked = config.scheduler_config.enable_chunked_prefill
        self.model_config = config.model_config
        self.settings = settings
        self.traits = model_traits(config)
        self.ends = ends_of(config.model_config)  # known from now on
        self.slots = slots
        self.images = images
        self.formats = formats
        self.recorded = recorded  # whether somebody reads what each pass did

    def asks(self, request: Request) -> Asks:
        own = request.sampling_params.extra_args
        settings, text = self.settings.of_request(own), given_text(own)
        length = settings.canvas_length(request.num_prompt_tokens, request.max_tokens) + len(text.suffix)
        canvases = 2 if settings.cfg_scale else 1
        first_pass = canvases * length
        # a prompt that is scored is short at first: a pass for each of its tokens
        if settings.policy.commits and self.chunked and not has_target(request.sampling_params):
            first_pass = min(first_pass, settings.shortest_chunk(self.slots.page_size))
        return Asks(settings, text, canvases, length, first_pass)

    def has_room(self, request: Request, places: int, budget: int) -> bool:
        """Whether there is room for a request, whatever it may find computed."""
        asks = self.asks(request)
        length = self.slots.free() // asks.canvases * self.slots.page_size
        return asks.canvases <= places and asks.first_pass <= budget and asks.length <= length

    def start(self, request: Request, places: int, budget: int, others: bool, weights: int | None) -> Running | None:
        """Take a request's pages and images, and plan its first pass; None, and nothing is taken, without room.

        `others`: whether other requests run. `weights`: how often the worker's have been changed."""
        asks = self.asks(request)
        if asks.canvases > places or asks.first_pass > budget:
            return None
        computed = self.slots.take(request, asks.length, asks.canvases == 2, others)
        if computed is None:
            return None
        self.images.admit(request)
        running = self._running(request, asks, computed)
        running.weights = weights if computed else None  # with which what was found was computed
        planned = running.decoding.plan()
        running.planned = running.within(budget, planned, self.chunked) or planned
        if request.prefill_stats is not None:
            request.prefill_stats.set(request.num_prompt_tokens, computed, 0)
        return running

    def _running(self, request: Request, asks: Asks, computed: int) -> Running:
        scoring, decodes = scoring_of(request, self.traits, asks.settings, self.recorded, computed)
        decoding = self._decoding(request, asks.settings, asks.text, computed) if decodes else None
        first = scoring or decoding
        assert first is not None
        pages, shares = self.slots.pages(request), self.slots.shares(asks.settings)
        return Running(first, pages, shares, None if first is decoding else decoding)

    def _decoding(self, request: Request, settings: Settings, text: GivenText, computed: int) -> Decoding:
        params = request.sampling_params
        sampling = Sampling(
            params.temperature,
            params.top_k,
            params.top_p,
            params.seed,
            params.num_logprobs,
            end_token_ids(params),
            params.min_p,
        )
        return Decoding(
            request.prompt_token_ids,
            request.max_tokens,
            settings,
            sampling,
            self.traits,
            self.slots.page_size,
            recorded=self.recorded,
            text=text,
            constraints=self._constraints(params, settings, text),
            ends=self.ends.of_text_and_turn,
            computed=computed,
        )

    def _constraints(self, params: SamplingParams, settings: Settings, text: GivenText) -> list[Constraint]:
        found = constraints_of(params, settings, text, self.model_config)
        if carried := carrier_of(params):
            found.append(self.formats.constraint(*carried))
        return found


def end_token_ids(params: SamplingParams) -> frozenset[int]:
    """The tokens that end a request's response: the EOS and the checkpoint's further ones, unless they are to be
    ignored, and the request's own."""
    return frozenset((*(params.stop_token_ids or ()), *(i for i in (params.eos_token_id,) if i is not None)))
