"""Reports as pages: one self-contained file each, whose script and style are its own and whose text is all escaped."""
