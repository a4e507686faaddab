"""The commands, one module each: parse arguments, wire, print."""
