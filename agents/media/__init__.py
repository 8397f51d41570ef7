"""The media worker: takes an uploaded film, checks it, makes it playable, and reports with events. Runs as `python -m agents.media`."""
