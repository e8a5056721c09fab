"""Load tests: prove what an answer costs before anybody pays for it."""
