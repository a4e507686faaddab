"""The embedded data set: 43 classes of traffic signs, drawn by stnbench itself, in tracks of an approaching car."""
