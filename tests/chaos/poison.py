"""What the defective worker (`tests.chaos.poisonable`) and its test agree on."""

DEADLY_WIDTH = 77
