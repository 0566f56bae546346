"""Damaged input of every kind: an error that tells, or a sound result.

`damage` damages bytes and JSON at random, `kinds` knows each kind of input: a
sound one, damage that reaches deep, the reader, and what a result must be.
`worker` reads damaged inputs in a process with little memory, whose writes are
watched; `pool` gives it its time. From the folder `tests`:

    python -m inputs --number=10000 --seed=0
"""
