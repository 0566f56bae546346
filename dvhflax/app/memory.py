"""Gives back to the system what was freed.

A session is some 40 MB in arrays. The C library keeps what is freed in pieces
between what is not, and reuses only a part of it for the next session's: while
sessions came and went its heap grew, though what was in use did not.
"""

import contextlib
import ctypes


def give_back() -> None:
  """Where the C library is glibc; elsewhere nothing."""
  # Windows has no library of the program itself, others no such function.
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)
