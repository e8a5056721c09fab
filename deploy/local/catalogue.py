"""The engines that the local stack can start: a table of names."""

from __future__ import annotations

from pathlib import Path

from serving.errors import EngineError
from serving.launch import EngineSettings

BASE, ADAPTED, CRAMPED = "base", "math-w8a8", "math-w8a8-cramped"

_CATALOGUE: dict[str, tuple[str, int]] = {  # name -> folder of the weights, sequences at a time
    BASE: ("base", 16),
    ADAPTED: ("candidate-w8a8", 16),
    CRAMPED: ("candidate-w8a8", 1),  # the same weights, one sequence at a time: requests queue
}

SLOTS = 2
"""How many engines run at once: one a core, so that neither arm borrows the other's."""


def engine(name: str, models: Path, first_port: int, slot: int) -> EngineSettings:
    """Return the settings of a catalogue engine in a slot (its port and core). Raises EngineError for another name."""
    if name not in _CATALOGUE:
        raise EngineError(f"no engine {name!r} in the local stack; it has {', '.join(_CATALOGUE)}")
    folder, sequences = _CATALOGUE[name]
    return EngineSettings(
        name=name,
        model_dir=models / folder,
        served_model=name,
        port=first_port + slot,
        core=slot,
        max_num_seqs=sequences,
    )
