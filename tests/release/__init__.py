"""The proof of the release engine: whoever dies, sleeps, races or lies about the time, its laws hold."""
