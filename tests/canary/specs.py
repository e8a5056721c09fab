"""A spec for the tests, and small changes of it."""

from __future__ import annotations

SPEC = """\
model: m
release: r1
decision:
  goal: {metric: domain_accuracy, text: "better"}
  baseline: "the general model"
  data: {sources: ["docs"], licence: "MIT", known_bias: "none known"}
  budget: {usd: 5, stop_loss_usd: 8, spent_before_usd: 1, opportunity: "an afternoon", risk: "small"}
  risks: ["forgetting"]
  evaluation: {domain: evals/domain.jsonl}
  success: {domain_accuracy: {min_gain: 0.03}}
  rollback: "to the general model"
arms:
  baseline: {engine: base, served_model: base, usd_per_hour: 0.1}
  candidate: {engine: new, served_model: new, usd_per_hour: 0.2}
gates:
  load: {workload: prompts.jsonl, slo: {ttft_p95: 500ms}}
shadow: {percent: 20, min_pairs: 30}
steps:
  - {percent: 5, min_duration: 2s, min_samples: 20}
  - {percent: 50, min_duration: 2s, min_samples: 50}
bake: {duration: 2s}
guardrails:
  error_rate: {max_increase: 5pp}
"""


def changed(old: str, new: str, text: str = SPEC) -> str:
    """Return the spec with one change."""
    assert old in text
    return text.replace(old, new)
