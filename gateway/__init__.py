"""The HTTP side: takes writes, answers queries, serves films."""
