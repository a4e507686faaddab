"""The embedded data set: 43 classes of traffic signs, drawn by our own code and seen in tracks as a car approaches."""
