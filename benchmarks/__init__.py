"""Programs that print the figures of docs/benchmarks.md."""
