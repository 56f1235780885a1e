"""`python -m marathon_pipeline` is the `marathon` command."""

from marathon_pipeline.cli import main

main()
