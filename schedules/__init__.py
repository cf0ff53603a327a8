"""The shipped schedules: one YAML file an experiment, found by name with `--compress NAME`."""
