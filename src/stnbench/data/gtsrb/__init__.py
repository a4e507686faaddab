"""The German Traffic Sign Recognition Benchmark, read from the official folders or archives."""
