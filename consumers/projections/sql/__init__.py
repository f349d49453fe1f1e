"""Questions and answers: foreign SQL, run read-only and within limits, over the bus or in this process.

`query` asks, `service` answers beside the projector, `local` answers where none runs. It never writes a projection.
"""
