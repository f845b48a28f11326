"""The server's own HTTP routes: an `EndpointPlugin` of vLLM's for each, in ENDPOINTS. patches/endpoints.py attaches them."""

from vllm_dllm.endpoints.loglikelihood import LoglikelihoodEndpoint
from vllm_dllm.endpoints.watch import WatchEndpoint

ENDPOINTS = (LoglikelihoodEndpoint, WatchEndpoint)
