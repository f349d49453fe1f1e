"""The log again: archive it, read its past, send it somewhere, rebuild tables from it, prove that they are right.

Nothing here folds or stores in a way of its own: it drives the rooms below over what has already happened. The
modules are for event loops; `sync` has the same for programs without one.
"""
