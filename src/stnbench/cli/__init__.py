"""The commands, one module each, which parse arguments, call the package and print."""
