"""The likelihood of a text that is there: what to mask, and what the numbers read of it say. Knows nothing of vLLM.

pair (prompt, target) --- asked.py: which estimator? ---> passes.py: what each pass masks and reads
                              draws.py: masks that are drawn                  | the engine: one number a pass
result.py: Likelihood <-------------------------------------------------------+
"""
