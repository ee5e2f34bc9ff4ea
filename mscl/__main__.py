from mscl.cli.main import main

main()
