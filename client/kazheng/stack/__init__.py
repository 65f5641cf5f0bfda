"""Everything one machine needs to run Kazheng without Docker: the embedded servers and what supervises them."""
