"""The state of one token, and the store that holds it."""
