"""Importing this module pins the numerics: import it before NumPy, in tests and benchmarks."""

from diffmbrl import numerics

numerics.pin()
