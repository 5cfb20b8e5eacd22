"""The parameterizations, one module per entry: see `diffmbrl.registry`."""
