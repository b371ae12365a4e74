"""Robots: what to carry, plans, their checker and their solvers."""
