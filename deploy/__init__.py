"""Where Linnet runs: the local stack, Prometheus, later images and charts."""
