"""Store of trials and their results, written by one process and read by any number."""
