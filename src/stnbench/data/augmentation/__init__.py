"""Random variations of training images, and the views of test-time augmentation."""
