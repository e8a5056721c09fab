"""The operator's verbs, one small function each; `canary.cli` mounts them by name and loads them when called."""
