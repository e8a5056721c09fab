"""Who comes in, and what they ask."""
