"""The journal on disk: one SQLite file, written by one thread."""

from builder.adapters.sqlite_journal.file import journal_path
from builder.adapters.sqlite_journal.journal import SqliteJournal

__all__ = ["SqliteJournal", "journal_path"]
