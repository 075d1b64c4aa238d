"""A real Kubernetes on a Linux machine without a container engine."""
