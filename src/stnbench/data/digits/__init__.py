"""Handwritten digits, distorted as in Jaderberg et al. 2015: scikit-learn's, and MNIST."""
