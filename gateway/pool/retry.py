"""The retry budget: how often a worker may ask twice for one model (pure)."""

from __future__ import annotations

from gateway.pool.options import PoolOptions


class RetryBudget:
    """A bucket of retries: each request puts a part of one in, each second a few, each retry takes one out.

    When everything fails, a retry only doubles the load; so retries stay a small part of the traffic. What is saved up
    pays for the one moment in which an engine dies with many requests in hand.
    """

    __slots__ = ("_at", "_most", "_part", "_per_s", "_saved")

    def __init__(self, options: PoolOptions, now: float) -> None:
        self.follow(options)
        self._saved = self._most
        self._at = now

    def follow(self, options: PoolOptions) -> None:
        """Go by new options from now on."""
        self._part = options.retry_part
        self._per_s = options.retry_per_s
        self._most = float(options.retry_burst)

    def asked(self) -> None:
        """Count one request."""
        self._saved += self._part

    def take(self, now: float) -> bool:
        """Tell whether one retry may be made, and count it if so."""
        self._saved = min(self._most, self._saved + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
