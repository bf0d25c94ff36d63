"""Get a token that is not this one: decide, join or start a refresh, wait."""
