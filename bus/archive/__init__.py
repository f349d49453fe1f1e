"""The log's second storage: immutable Parquet files by day and run, under one manifest, lossless to the byte."""

from .archive import Archive, epochs

__all__ = ["Archive", "epochs"]
