"""The data plane: one request, in and out."""
