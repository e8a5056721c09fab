"""One request's story, and the answer on its way through."""
