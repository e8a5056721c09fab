"""The control plane: from evidence to a decision, and from a decision to every worker."""
