"""Quantize a checkpoint to W8A8 int8, in the compressed-tensors layout that vLLM reads.

Weights: one symmetric scale per output channel, w ~ round(w / s) x s with s = max|w| / 127. Activations: one scale per
token, found by the engine as it runs, so no calibration data is needed. The output layer and the embedding stay as they
are. Format: https://github.com/vllm-project/compressed-tensors ("int-quantized").
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from serving.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensors = dict[str, torch.Tensor]

LARGEST = 127
"""Of a symmetric signed byte."""


def is_quantized(name: str, tensor: torch.Tensor) -> bool:
    """Say whether a tensor is the weight of a linear layer inside the transformer's blocks."""
    return tensor.dim() == 2 and ".layers." in name and name.endswith("_proj.weight")  # noqa: PLR2004


def channel_scales(weight: torch.Tensor) -> torch.Tensor:
    """Return max|w| / 127 for each output channel, shape (out, 1), float32; 1 for a channel of zeros."""
    largest = weight.float().abs().amax(dim=1, keepdim=True)
    return torch.where(largest > 0, largest / LARGEST, 1.0)


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (int8 weight, scales): the nearest step for each value."""
    scales = channel_scales(weight)
    steps = torch.round(weight.float() / scales).clamp(-LARGEST, LARGEST)
    return steps.to(torch.int8), scales


def dequantize(tensors: Tensors) -> Tensors:
    """Undo `quantize_tensors` up to its rounding: int8 weights times their scales, the scales gone."""
    scales = {name.removesuffix("_scale"): tensor for name, tensor in tensors.items() if name.endswith("weight_scale")}
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("weight_scale")}
    return {name: t.float() * scales[name].float() if name in scales else t for name, t in kept.items()}


def quantize_tensors(tensors: Tensors, chosen: Callable[[str, torch.Tensor], bool] = is_quantized) -> Tensors:
    """Return the checkpoint's tensors with the chosen weights as int8 and a `weight_scale` beside each."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if chosen(name, tensor):
            made[name], made[f"{name}_scale"] = quantize_weight(tensor)
        else:
            made[name] = tensor
    return made


def quantization_config() -> dict[str, Any]:
    """Return what config.json says of the weights, so that an engine needs no flag."""
    integers = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None, "block_structure": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**integers, "strategy": "channel", "dynamic": False, "observer": "minmax"},
                "input_activations": {**integers, "strategy": "token", "dynamic": True, "observer": None},
                "output_activations": None,
            }
        },
    }


def quantize_checkpoint(source: Path, target: Path) -> None:
    """Write a quantized copy of a checkpoint folder; its tokenizer and templates go along unchanged."""
    config = read_config(source)
    if "quantization_config" in config:
        raise ModelError(f"{source} is quantized already; give the folder of a bfloat16 checkpoint")
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
            shutil.copy2(path, target / path.name)
    made = quantize_tensors(read_tensors(source))
    if not any(tensor.dtype == torch.int8 for tensor in made.values()):
        raise ModelError(f"nothing to quantize in {source}: no weight of a layer called *_proj")
    save_file(made, target / "model.safetensors", metadata={"format": "pt"})
    described = {**config, "quantization_config": quantization_config()}
    (target / "config.json").write_text(json.dumps(described, indent=2))


def read_config(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's config.json."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        raise ModelError(
            f"no model in {folder}: config.json is missing or broken; give a checkpoint's folder"
        ) from None
    return config


def read_tensors(folder: Path) -> Tensors:
    """Read all weights of a checkpoint."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"no weights in {folder}: no *.safetensors file; give a checkpoint's folder")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


if __name__ == "__main__":
    try:
        quantize_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))
    except ModelError as error:
        sys.exit(f"error: {error}")
