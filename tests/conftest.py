"""Plugins that all tests may use."""

pytest_plugins = ["tests.support.valkey", "tests.support.simulated"]
