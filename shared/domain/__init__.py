"""What the words mean: plain values and decisions, without clock, randomness or I/O."""
