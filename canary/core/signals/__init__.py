"""What each guardrail reads out of the tallies: an estimate with its numbers, and evidence both ways.

A signal turns the stages of one slice (sight.py) into a `Reading`; `SIGNALS` (table.py) is the table of them all.
"""

from canary.core.signals.latency import Lag
from canary.core.signals.sight import Reading, Sight, StageView, sums_of
from canary.core.signals.table import NOISE, SIGNALS, Signal

__all__ = ["NOISE", "SIGNALS", "Lag", "Reading", "Sight", "Signal", "StageView", "sums_of"]
