"""The `kazheng` command, one module a subcommand."""
