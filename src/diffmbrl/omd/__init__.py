"""Control-oriented model learning by implicit differentiation (Nikishin et al. 2022)."""
