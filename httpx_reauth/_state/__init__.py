"""What is known: the state of one token and the store that holds it."""
