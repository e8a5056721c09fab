"""Releases told ahead of need: forecasts, and a spec's guardrails over made-up or recorded traffic."""
