"""The routes that exist; whatever is not listed here does not."""
