"""From events to state and acts, one folder a consumer.

A consumer is a pure fold in a thin shell: the fold knows no clock, no randomness and no I/O; the shell reads the log,
keeps the position and acts. Consumers never import producers: they meet on the bus.
"""
