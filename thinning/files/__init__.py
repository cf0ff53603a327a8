"""Files for the whole project: written whole or not at all, and checked value by value when read."""
