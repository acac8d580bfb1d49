"""The commands of a worker, one family per file."""
