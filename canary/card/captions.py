"""What each key of a release spec means, in one sentence: the hover texts of editors. By the class that has the key."""

from __future__ import annotations

from typing import Final

_LATENCY: Final = "Upper quantile of a latency against the baseline's, such as {max_ratio: 1.10}."
_LIMIT: Final = "An absolute limit, whatever the baseline does; nothing fails while the baseline is over it too."
_ANSWER: Final = "Answers are searched for this only where it is named, such as {max_increase: 1pp}."
_COST: Final = "At the load test's prices, against the baseline's, such as {max_ratio: 1.05}."

CAPTIONS: Final[dict[str, dict[str, str]]] = {
    "Spec": {
        "model": "The public name that apps call; it never changes while releases come and go.",
        "release": "The name of this release; attempts of it are counted.",
        "decision": "The decision card: eight fields, all required.",
        "arms": "Who answers: the baseline, the candidate, and perhaps a control.",
        "gates": "Reports that preflight waits for.",
        "preflight": "What must be seen before anybody is exposed.",
        "shadow": "Mirror a share of the traffic to the candidate and compare; users see only the baseline.",
        "steps": "Shares of traffic, growing, each with its time and evidence.",
        "bake": "The last watch, with the rest of the traffic on the old baseline.",
        "guardrails": "What stops a release by itself.",
        "analysis": "How sure the guardrails must be, and what is assumed of the machines.",
        "freeze": "Windows in which nothing advances; rolling back stays free.",
        "notify": "Who hears of phases, holds, breaches and rollbacks; at most eight.",
        "max_duration": "How long the release may take in all; what follows is on_timeout or on_inconclusive.",
        "on_timeout": "What happens when time is up: hold, rollback or abort.",
        "on_inconclusive": "What happens when time is up and the evidence does not suffice: hold, rollback or abort.",
    },
    "Goal": {
        "metric": "The metric that tells: SLICE_accuracy of an evaluated slice.",
        "text": "What is to become better.",
    },
    "Data": {
        "sources": "What the candidate was made from.",
        "licence": "Under which licences.",
        "known_bias": "What the data is known to lack or to lean to.",
    },
    "Budget": {
        "usd": "What the release may cost, what was spent before included.",
        "stop_loss_usd": "Crossing it ends the release.",
        "spent_before_usd": "What was spent before: training, earlier attempts.",
        "opportunity": "What else the time and money could do.",
        "risk": "What a bad release may cost.",
    },
    "Threshold": {"min_gain": "What the metric must gain over the baseline: 0.05 is five points of a hundred."},
    "Decision": {
        "goal": "What is to become better, and by which metric.",
        "baseline": "What is done today, and how well.",
        "data": "What the candidate was made from.",
        "budget": "What it may cost, in US dollars.",
        "risks": "What may go wrong.",
        "evaluation": "By slice, a file of JSON lines with a text each; relative to this file.",
        "success": "By metric, what must be gained; without it there is no promotion.",
        "rollback": "How the team retreats.",
    },
    "TokenRates": {
        "prompt": "US dollars a million prompt tokens.",
        "completion": "US dollars a million completion tokens.",
    },
    "ArmSpec": {
        "engine": "The engine's name, as metrics and the running stack know it.",
        "served_model": "The name that the engine knows the model by.",
        "quantization": "For the record, such as compressed-tensors.",
        "usd_per_hour": "What its engines cost an hour, all replicas together.",
        "usd_per_million_tokens": "What its tokens cost, where they are paid for and not the hours.",
        "replicas": "Where it is served; left out, where the running stack says.",
        "digest": "The identity of what is served; left out, what the running stack says.",
    },
    "ControlSpec": {
        "engine": "The engine's name, or give replicas.",
        "served_model": "Left out, the baseline's.",
        "usd_per_hour": "Of machines that are there for the release alone.",
        "replicas": "Replicas of its own, with none of the baseline's.",
        "digest": "Must be the baseline's.",
    },
    "Arms": {
        "baseline": "What answers today.",
        "candidate": "What is to take its place.",
        "control": "The baseline's model on replicas of its own, loaded as the candidate is.",
    },
    "SaturationSpec": {
        "in_flight": "Users at a time, each asking again as soon as it is answered.",
        "duration": "How long.",
    },
    "LoadGate": {
        "workload": "A file of prompts, JSON lines; relative to this file.",
        "rate": "Requests a second, on an absolute schedule.",
        "duration": "How long, after the warm-up.",
        "saturation": "How the cost of a token is measured: at capacity.",
        "max_tokens": "Tokens of an answer, at most.",
        "slo": "What latencies must meet, such as ttft_p95: 500ms.",
        "max_usd_per_million_tokens": "The most a million completion tokens may cost.",
        "max_cost_ratio": "The candidate's cost of a token over the baseline's, at most.",
        "max_lag_p99": "A load generator later than this makes the run invalid.",
    },
    "EvalGate": {
        "passages": "Passages of each slice that are scored.",
        "max_general_loss": "What the general slice may lose: 0.02 is two points of a hundred.",
    },
    "Gates": {"load": "The load test's.", "eval": "The offline evaluation's."},
    "PreflightSpec": {
        "max_rollback": "A rehearsed rollback must be with every worker within this time.",
        "known_capacity": "Wait until it is known that the baseline can serve all the traffic.",
    },
    "ShadowSpec": {
        "percent": "Share of the baseline's requests that are mirrored.",
        "min_pairs": "Pairs to be scored before the first user.",
        "max_concurrency": "Mirrored requests at a time, in each worker.",
        "min_duration": "At least so long.",
        "max_duration": "At most so long; what follows is on_timeout or on_inconclusive.",
    },
    "StepSpec": {
        "percent": "The candidate's share of traffic.",
        "min_duration": "At least so long.",
        "min_samples": "Finished requests of the candidate at this share, at least.",
        "gate": "manual: a person says `linnet promote`.",
        "ramp": "Take so long to get to this share, in parts.",
        "max_duration": "At most so long.",
        "on_timeout": "What happens then; left out, what the release says.",
        "on_inconclusive": "What happens then if the evidence does not suffice; left out, what the release says.",
    },
    "BakeSpec": {
        "duration": "How long the last watch is.",
        "percent": "The candidate's share; the rest stays on the old baseline.",
        "min_samples": "Finished requests of the candidate, at least.",
        "ramp": "Take so long to get to this share, in parts.",
        "max_duration": "At most so long.",
    },
    "Window": {
        "from": "Begin, with a time zone.",
        "to": "End, with a time zone.",
        "reason": "Why; shown while it holds.",
    },
    "Analysis": {
        "alpha": "Chance of rolling back a candidate that is no worse, all guardrails together.",
        "beta": "Chance of passing a guardrail that is at its margin.",
        "min_samples": "Requests of each arm before a guardrail may pass; left out, the largest of the steps'.",
        "own_noise": "The most slow noise of one replica's own that is assumed.",
        "warm_up": "After the first share caches fill: latency and cost are no evidence for so long.",
        "max_load_ratio": "Arms whose requests in flight a replica differ by more are not load-matched.",
    },
    "NotifySpec": {
        "url": "Where to send: https://HOST/PATH, without a user or password.",
        "url_env": "The variable (LINNET_NOTIFY_...) of the control plane that holds a secret address, as Slack's is.",
        "events": "What to send: phase, hold, breach, rollback; left out, all of them.",
        "secret_env": "The variable (LINNET_NOTIFY_...) of the control plane that holds the secret which signs.",
        "form": "json, signed; or slack: {text: ...}.",
    },
    "NoiseSpec": {
        "ttft": "Standard deviation of the log; 0 is none.",
        "tpot": "Standard deviation of the log; 0 is none.",
    },
    "Guardrails": {
        "error_rate": "Failed and timed-out requests, such as {max_increase: 0.5pp}.",
        "empty": "Good answers without a token, such as {max_increase: 1pp}.",
        "truncated": "Answers cut off at the token limit, such as {max_increase: 1pp}.",
        **dict.fromkeys(("refusal", "malformed", "repetition"), _ANSWER),
        **dict.fromkeys(("ttft_p95", "ttft_p99", "tpot_p95", "stall_p99"), _LATENCY),
        "e2e_p95": "Advice: warns unless it has a weight.",
        "output_length": "Tokens of an answer, neither longer nor shorter, such as {max_ratio: 1.25}.",
        **dict.fromkeys(("cost_per_token", "cost_per_request"), _COST),
        "shadow_quality": "Next-token accuracy on users' text, pair by pair, such as {min_difference: -0.02}.",
        **dict.fromkeys(("error_rate_limit", "ttft_p95_limit", "ttft_p99_limit", "tpot_p95_limit"), _LIMIT),
    },
    "GuardSpec": {
        "slices": "Judge these slices, each on its own; left out, all traffic.",
        "on_breach": "What a breach does: rollback, pause or warn.",
        "weight": "Its part of the evidence beside the others'.",
        "strict": "Any proved harm fails, however small; the margin is for passing alone.",
        "max_increase": "How much it may grow, in percentage points.",
        "max_ratio": "The most it may be, as a multiple of the baseline's.",
        "max": "The most it may be.",
        "min_difference": "The most it may fall, below 0.",
    },
}
