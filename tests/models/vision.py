"""LLaDA-V's images in plain Pillow and PyTorch: pixels, tower, projector, and what of the features stands in the prompt."""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

TOWER = "model.vision_tower.vision_tower.vision_model."


class PlainVision:
    def __init__(self, path: Path):
        self.weights = {k: v.float() for k, v in load_file(path / "model.safetensors").items()}
        self.config = json.loads((path / "config.json").read_text())
        tower = self.config["vision_config"]
        self.side, self.patch, self.heads = tower["image_size"], tower["patch_size"], tower["num_attention_heads"]
        self.of_tile, self.eps = self.side // self.patch, tower["layer_norm_eps"]
        self.layers = tower["num_hidden_layers"] - 1

    # ---- pixels ----

    def resolution(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the grid that keeps most of the image's pixels, and of those wastes least."""

        def rank(pinpoint: list[int]) -> tuple[int, int]:
            w, h = pinpoint
            scale = min(w / width, h / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return -kept, w * h - kept

        return tuple(min(self.config["image_grid_pinpoints"], key=rank))

    def tiles(self, image: Image.Image) -> torch.Tensor:
        """[1 + tiles, 3, side, side]"""
        w, h = self.resolution(*image.size)
        if w / image.width < h / image.height:
            size = w, min(math.ceil(image.height * w / image.width), h)
        else:
            size = min(math.ceil(image.width * h / image.height), w), h
        canvas = Image.new("RGB", (w, h))
        canvas.paste(image.resize(size, Image.Resampling.BICUBIC), ((w - size[0]) // 2, (h - size[1]) // 2))
        parts = [image.resize((self.side, self.side), Image.Resampling.BICUBIC)]
        for top in range(0, h, self.side):
            parts += [canvas.crop((left, top, left + self.side, top + self.side)) for left in range(0, w, self.side)]
        pixels = np.stack([np.asarray(part) for part in parts]).transpose(0, 3, 1, 2)
        scaled = (pixels * (1 / 255)).astype(np.float32)
        return torch.from_numpy((scaled - np.float32(0.5)) / np.float32(0.5))

    # ---- features ----

    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        """[1 + tiles, features of a tile, hidden size]"""
        x = F.conv2d(tiles, *self._pair("embeddings.patch_embedding"), stride=self.patch).flatten(2).transpose(1, 2)
        x = x + self.weights[TOWER + "embeddings.position_embedding.weight"]
        for layer in range(self.layers):
            name = f"encoder.layers.{layer}."
            h = self._norm(name + "layer_norm1", x)
            q, k, v = (self._heads(F.linear(h, *self._pair(f"{name}self_attn.{part}_proj"))) for part in "qkv")
            mixed = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
            x = x + F.linear(mixed.transpose(1, 2).flatten(2), *self._pair(name + "self_attn.out_proj"))
            h = F.linear(self._norm(name + "layer_norm2", x), *self._pair(name + "mlp.fc1"))
            x = x + F.linear(F.gelu(h, approximate="tanh"), *self._pair(name + "mlp.fc2"))
        for part in ("0", "2"):
            weight, bias = (self.weights[f"model.mm_projector.{part}.{kind}"] for kind in ("weight", "bias"))
            x = F.linear(x if part == "0" else F.gelu(x), weight, bias)
        return x

    def _pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weights[f"{TOWER}{name}.weight"], self.weights[f"{TOWER}{name}.bias"]

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], *self._pair(name), eps=self.eps)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    # ---- the prompt ----

    def embeddings(self, image: Image.Image) -> torch.Tensor:
        """[positions, hidden size], in the prompt's order"""
        whole, *tiles = self.features(self.tiles(image))
        w, h = self.resolution(*image.size)
        across, down = w // self.side, h // self.side
        lines = []  # of features, a tensor for each row of the grid
        for row in range(down):
            for line in range(self.of_tile):
                there = [t.view(self.of_tile, self.of_tile, -1)[line] for t in tiles[row * across : (row + 1) * across]]
                lines.append(torch.cat(there))
        grid = torch.stack(lines)
        rows, columns = grid.shape[:2]
        if image.width / image.height > columns / rows:
            border = (rows - int(image.height * (columns / image.width))) // 2
            grid = grid[border : rows - border]
        else:
            border = (columns - int(image.width * (rows / image.height))) // 2
            grid = grid[:, border : columns - border]
        rows, columns = grid.shape[:2]
        ratio = math.sqrt(rows * columns / (4 * self.of_tile**2))
        if ratio > 1.1:
            size = [int(rows // ratio), int(columns // ratio)]
            grid = F.interpolate(grid.permute(2, 0, 1)[None], size, mode="bilinear")[0].permute(1, 2, 0)
        newline = self.weights["model.image_newline"][None]
        return torch.cat([whole, *(part for row in grid for part in (row, newline))])
