"""`python -m instil` is the `instil` command, for launchers that take a module."""

from instil.cli.main import main

if __name__ == "__main__":
    main()
