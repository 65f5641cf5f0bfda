"""One module a provider; they never import each other."""
