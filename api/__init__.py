"""Morphogen."""
