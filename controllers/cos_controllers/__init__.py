"""The functional core of cos-operator: every decision, made from data, without I/O, clock or randomness."""
