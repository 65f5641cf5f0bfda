"""Tests of the sandbox: its protocol, its layout rules, its reading."""
