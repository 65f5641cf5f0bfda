"""The sandbox for load and faults: answers from a script, without reading pictures."""
