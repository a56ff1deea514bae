"""The journal on disk: one SQLite file, written by one thread."""
