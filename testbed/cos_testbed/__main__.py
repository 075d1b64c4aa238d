"""`python -m cos_testbed`."""

from cos_testbed.cli import main

main()
