"""The domains, one module per entry: see `diffmbrl.registry`."""
