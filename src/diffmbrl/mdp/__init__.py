"""Dense MDPs and their Bellman operators."""
