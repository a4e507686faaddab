"""Reading images at sampling points."""
