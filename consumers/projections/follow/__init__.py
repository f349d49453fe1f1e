"""Keeps a store up with its log: messages are read, folded and committed, once or for ever.

`projector` is the process that does so. SQL is not its business: it hands its store to whoever serves it.
"""
