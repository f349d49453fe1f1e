"""What a fold is given and what it gives back: messages as columns, and columns as Arrow tables.

It is pure, and knows neither DuckDB nor the bus.
"""
