"""Known random warps of images: drawn, rendered, and kept with what they did."""
