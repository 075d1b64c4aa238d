"""`python -m cos_operator.cli`, as `kubectl cos`."""

from cos_operator.cli.app import main

main()
