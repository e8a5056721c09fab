"""A release that is over in seconds, and its workload, written beside each other."""

from __future__ import annotations

import json
from pathlib import Path

SPEC = """\
model: mathdocs
release: {release}
decision:
  goal: {{metric: domain_accuracy, text: "better"}}
  baseline: "the general model"
  data: {{sources: ["docs"], licence: "MIT", known_bias: "none known"}}
  budget: {{usd: 5, stop_loss_usd: 8, spent_before_usd: 1, opportunity: "an afternoon", risk: "small"}}
  risks: ["forgetting"]
  evaluation: {{domain: evals/domain.jsonl}}
  success: {{domain_accuracy: {{min_gain: 0.03}}}}
  rollback: "to the general model"
arms:
  baseline: {{engine: base, served_model: base, usd_per_hour: 0.1}}
  candidate: {{engine: math-w8a8, served_model: math-w8a8, usd_per_hour: 0.1}}
{gates}shadow: {{percent: 100, min_pairs: 10, max_concurrency: 4}}
steps:
{steps}bake: {{duration: {bake}, percent: 90}}
analysis: {{min_samples: 20}}
guardrails:
  error_rate: {{max_increase: 30pp}}
"""
GATES = """\
gates:
  load:
    workload: prompts.jsonl
    rate: 20
    duration: 1s
    max_tokens: 8
    saturation: {in_flight: 4, duration: 1s}
    slo: {ttft_p95: 2s}
    max_lag_p99: 1s
"""
QUICK = ("{percent: 20, min_duration: 1s, min_samples: 10}", "{percent: 60, min_duration: 1s, min_samples: 20}")
LONG = ("{percent: 50, min_duration: 10m, min_samples: 10}",)


def write_spec(folder: Path, release: str = "quick", *, steps: tuple[str, ...] = QUICK, bake: str = "2s") -> str:
    """Write the spec and its prompts into a folder; return the spec's path."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"The sum of {n} and {n}", "slice": "domain"}) + "\n" for n in range(40))
    )
    path = folder / f"{release}.yaml"
    lines = "".join(f"  - {step}\n" for step in steps)
    path.write_text(SPEC.format(release=release, gates=GATES, steps=lines, bake=bake))
    return str(path)
