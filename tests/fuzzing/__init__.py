"""Fuzzing: any input from outside must end in a token or a documented error.

It must end soon, with little memory, and without a secret in a message. `python -m tests.fuzzing --minutes 5` tries
inputs for that long. The tests try a few inputs, the same each time.
"""
