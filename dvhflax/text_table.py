"""Tables for the terminal and for reports."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table, two blanks between its columns.

  Args:
    rows: cells, the heading first. The first column is aligned to the left, the
      others to the right.
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for first, *rest in rows:
    cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:])]
    lines.append('  '.join([first.ljust(widths[0]), *cells]).rstrip())
  return lines
