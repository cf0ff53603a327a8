"""The schedule language: reading YAML strictly, checking it whole against registry and model, planning it."""
