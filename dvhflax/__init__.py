"""Individualised Pareto-optimal radiotherapy dose from masks and a DVH."""

__version__ = '0.1.0'
