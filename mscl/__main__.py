from mscl.cli import main

main()
