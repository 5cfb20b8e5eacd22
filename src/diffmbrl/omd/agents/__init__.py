"""The agents, one module per entry: see `diffmbrl.registry`."""
