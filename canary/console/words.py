"""What the status says of the conditions, in words. Pure: its JSON in, a line out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canary.console import figures

JSON = Mapping[str, Any]


def references(known: JSON | None) -> str:
    """Say in one line what is known of the machines, '' where nothing is."""
    told = {latency: one for latency, one in (known or {}).items() if one is not None}
    if not told:
        return ""
    longest = max(told.values(), key=lambda one: one["seconds"])
    if not any(one["tells"] for one in told.values()):
        return f"{_of(longest)}: too little to tell"
    bounds = ", ".join(f"{latency.upper()} {_bound(one)}" for latency, one in told.items())
    return f"{_of(longest)}: own noise of {bounds}"


def _bound(known: JSON) -> str:
    if not known["tells"]:
        return "not known yet"
    return "beyond what is assumed" if known["outside"] else f"at most {figures.share(known['largest']['sd'])}"


def _of(known: JSON) -> str:
    machines = f"{sum(known['replicas'])} replicas" if known["source"] == "replicas" else "the control and the baseline"
    return f"{hours(known['seconds'])} of {machines}, last block {figures.seconds(known['age_s'])} ago"


def reference(known: JSON | None, latency: str) -> str:
    """Say how old and how good a latency's reference is."""
    if known is None:
        return "none; a slow machine and a slow model look alike for long"
    of = _of(known)
    if not known["tells"]:
        return f"{of}: too little to tell"
    if known["outside"]:
        return f"{of}: machines noisier than is assumed; raise analysis.own_noise.{latency}, or use more replicas"
    likely = known["likeliest"]
    usual = f"{figures.share(likely['sd'])} for {figures.seconds(likely['tau_s'])}" if likely["sd"] else "none"
    return f"{of}: own noise of {latency.upper()} at most {figures.share(known['largest']['sd'])}, most likely {usual}"


def hours(seconds: float) -> str:
    """Write a long time as hours, a short one in its own units."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else figures.seconds(seconds)  # noqa: PLR2004 - an hour


def load(known: JSON | None) -> str:
    """Say how the arms are loaded, '' where it is not known."""
    said = []
    for arm, one in (known or {}).items():
        if one.get("in_flight") is None:
            continue
        cached = "" if one.get("cached") is None else f", {figures.share(one['cached'])} of prompt tokens cached"
        said.append(f"{arm} {one['in_flight']:.2g} in flight a replica ({one['replicas']}){cached}")
    return "; ".join(said)
