"""Python imports this by itself from a folder of `PYTHONPATH`."""

import os

import watching

watching.watch(os.environ)
