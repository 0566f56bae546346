"""`python -m dvhflax` is the command `dvhflax`."""

from dvhflax.cli.main import main

if __name__ == '__main__':
  main()
