"""The admin API, on the control plane's own listener."""
