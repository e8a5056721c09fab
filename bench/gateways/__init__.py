"""Gateways side by side on one machine, ours among them: `python -m bench.gateways`."""
