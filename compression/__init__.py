"""Schedules, masks, pruners, regularizers, gates, tables and checkpoints."""
