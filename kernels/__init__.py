"""Compute with no log in it: slots and blueprints. Usable alone, in a notebook."""
