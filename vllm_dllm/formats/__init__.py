"""Guaranteed formats: a regular language as an automaton over a model's tokens. Nothing here knows vLLM's engine."""
