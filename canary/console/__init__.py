"""The operator's terminal: verbs, what they say, and the two ways to a release."""
