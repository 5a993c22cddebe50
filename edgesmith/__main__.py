"""`python -m edgesmith` is the `edgesmith` command."""

from edgesmith.pipeline.cli import main

if __name__ == "__main__":
    main()
