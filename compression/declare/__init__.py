"""What the author of a pruner or regularizer imports: arguments, names, registry, cross-checks."""
