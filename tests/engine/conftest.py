"""The plain models that engine tests compare with."""

import pytest
import torch
from plain import Plain

torch.set_num_threads(1)  # the matrices are tiny: more threads only wait for each other


@pytest.fixture(scope="session")
def plain_llada() -> Plain:
    return Plain("tiny-llada")


@pytest.fixture(scope="session")
def plain_dream() -> Plain:
    return Plain("tiny-dream")
