"""What `--json` prints: the types that the published schema is made from."""
