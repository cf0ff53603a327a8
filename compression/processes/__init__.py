"""Many processes that train one network: what they decide together, and how they find out that they differ."""
