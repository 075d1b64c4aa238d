"""The imperative shell of cos-operator: everything that touches the network, the clock or randomness."""
