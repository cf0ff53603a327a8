"""What `benchmarks/rule_mutants.py` runs in place of the rule files: a change at a time."""
