"""One module a noun: its operations, and how each is answered."""
