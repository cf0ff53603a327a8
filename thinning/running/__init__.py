"""How a model is run for tracing and comparison: copies, inputs, outputs, precision, default device."""
