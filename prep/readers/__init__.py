"""Readers of raw files of any size: lines, CSV, Parquet, JSON lines, tables of items."""
