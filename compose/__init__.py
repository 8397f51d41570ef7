"""The servers we stand on: settings, connections, the log, the object store."""
