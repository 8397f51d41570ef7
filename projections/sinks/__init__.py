"""Where changes are written: four sinks, one contract (`sink.Sink`)."""
