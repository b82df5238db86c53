"""The same work in JAX and in PyTorch, each in a process of its own, for `w2sr compare` and the benchmarks."""
