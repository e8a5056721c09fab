"""What outlives a process: the store, its scripts, and what they keep."""
