"""Kernels: the elementwise part of a step generated as one compiled loop, and products that walk spikes, on the CPU.

The engine's equations are functions of a backend. Called with a backend that writes down what it is asked for
(``tracing``), they become the body of a loop over neurons (``writer``), which Numba compiles once and keeps on disk
(``compiling``). Arrays are NumPy views of what the backend holds, so they serve every backend whose arrays lie in host
memory. Where Numba is not installed, or an equation uses an operation that has no scalar form, nothing here is used and
the engine runs as it is: the numbers are the same.
"""
