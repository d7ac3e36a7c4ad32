"""Sessions: their records, their stores and the one writer of each."""
