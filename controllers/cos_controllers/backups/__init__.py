"""Backups: what becomes of `StackBackup` objects, and the Jobs that copy data into repositories."""
