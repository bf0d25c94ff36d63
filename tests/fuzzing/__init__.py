"""Hostile input: whatever comes from outside ends in a token or a documented error, soon, small and without a secret.

`python -m tests.fuzzing --minutes 5` looks for as long as it is told; the tests look a little, at the same inputs each
time.
"""
