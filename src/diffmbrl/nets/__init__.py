"""Networks, and spectral normalisation on its own."""
