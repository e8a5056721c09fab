"""Fuzzing of every parser of ours, in process: mutated inputs, laws that must hold, a second parser to disagree with.

`python -m bench.fuzz --inputs 1000000` takes some minutes a parser and writes bench/results/fuzz.md.
"""
