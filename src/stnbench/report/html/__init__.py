"""Reports as pages: self-contained files that include their script and style, with all text escaped."""
