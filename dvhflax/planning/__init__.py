"""Simulated patients and their Pareto-optimal treatment plans."""
