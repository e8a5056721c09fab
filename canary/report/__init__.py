"""The comparison report: what an adaptation was worth, from what the store recorded."""
