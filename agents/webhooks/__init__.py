"""Tells subscribers of events, by HTTP. A reactor: it never runs in a rebuild."""
