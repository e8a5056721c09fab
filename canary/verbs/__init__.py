"""The operator's verbs, one small function each; `console.cli` mounts them by name and loads them when called."""
