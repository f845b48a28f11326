"""The greedy read-out on a CPU: what `readout_kernel.py` reads on a GPU, and the reference for it."""

import numpy as np
import torch

LEAST = 64  # lines that are read at once, whatever the vocabulary
ROOM = 1 << 17  # otherwise so many logits: what is read of them stays in the processor's caches


def read_greedily(
    logits: torch.Tensor,
    mask_id: int,
    packed: torch.Tensor,
    confidences: torch.Tensor | None = None,
    margin: bool = True,
    entropy: bool = True,
) -> None:
    """Fills `packed`, int32 [5, N], from logits [N, vocabulary] in any float dtype, which stay as they are; and
    `confidences`, float64 [N], if given. `readout.py` says what is in it (`Reading`).

    The token is the most likely one but the mask token, the first of several. A line is broken where there is no finite
    such logit, or one is NaN or infinite; it is read as if all its logits were zero, so that whatever is read of it is a
    number. `margin` and `entropy`: whether somebody wants them.
    """
    step = max(LEAST, ROOM // logits.shape[1])
    for low in range(0, len(logits), step):
        lines = slice(low, low + step)
        doubles = None if confidences is None else confidences.numpy()[lines]
        _read(logits[lines].float(), mask_id, packed.numpy()[:, lines], doubles, margin, entropy)


def _read(
    logits: torch.Tensor, mask_id: int, packed: np.ndarray, doubles: np.ndarray | None, margin: bool, entropy: bool
) -> None:
    every = np.arange(len(logits))
    values = packed[1:4].view(np.float32)
    token = _most_likely(logits.numpy(), mask_id)
    probs = torch.softmax(logits, -1)
    confidence = probs.numpy()[every, token]
    # NaN is neither; the mask token is what is left where all else is barred
    sound = (logits.numpy()[every, token] > -np.inf) & (confidence >= 0) & (token != mask_id)
    packed[4] = ~sound
    if not sound.all():
        logits = logits.masked_fill(torch.from_numpy(~sound)[:, None], 0)
        token[~sound] = int(mask_id == 0)  # the first one but the mask token
        probs = torch.softmax(logits, -1)
        confidence = probs.numpy()[every, token]
    packed[0], values[0] = token, confidence
    if margin:
        best = probs.topk(2, -1).values.numpy()
        values[1] = best[:, 0] - best[:, 1]
    if entropy:
        values[2] = entropies(probs).numpy()
    if doubles is not None:
        doubles[:] = torch.softmax(logits.double(), -1).numpy()[every, token]


def entropies(probs: torch.Tensor) -> torch.Tensor:
    """Of each line, in nats, with Dream's and d2Cache's epsilon, which keeps log(0) out."""
    return (probs + 1e-10).log_().mul_(probs).sum(-1).neg_()


def _most_likely(logits: np.ndarray, mask_id: int) -> np.ndarray:
    """The token of each line. NumPy's argmax is ten times as fast as PyTorch's on a CPU. NaN is the largest for both."""
    token = logits.argmax(-1)
    masks = (token == mask_id).nonzero()[0]
    if len(masks):
        others = logits[masks]
        others[:, mask_id] = -np.inf
        token[masks] = others.argmax(-1)
    return token
