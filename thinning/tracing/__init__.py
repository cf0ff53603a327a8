"""Run a model once with channel numbers beside its tensors: tracer, one call, labels, log, replay, rules."""
