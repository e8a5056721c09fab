"""Which arm answers: the splits a worker knows, and the choice they make."""
