from cos_testbed.cli import main

main()
