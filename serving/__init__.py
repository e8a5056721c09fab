"""Engines: launch, warm, watch, stop, price. Knows nothing of releases."""
