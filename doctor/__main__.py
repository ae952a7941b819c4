"""``python -m doctor``."""

from doctor.cli import main

main(prog_name="pegasus-doctor")
