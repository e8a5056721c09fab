"""Plugins that all tests may use."""

pytest_plugins = ["tests.support.engines", "tests.support.simulated", "tests.support.stack", "tests.support.valkey"]
