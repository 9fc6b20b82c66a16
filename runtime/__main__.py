"""`python -m runtime` is `heliograph`."""

from runtime.cli import main

main(prog_name="heliograph")
