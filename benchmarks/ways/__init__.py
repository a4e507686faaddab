"""The ways to run many trials that are measured side by side; each is a program of its own."""
