"""What a model is made of: neurons, connections, networks, readouts, and the one-line models."""
