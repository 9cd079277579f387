"""Credit assignment: adjoint and traces, and the feedback they travel through; no rule names in here."""
