"""The HTTP door: authenticate, check, keep, answer."""
