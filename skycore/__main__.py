"""`python -m skycore` is `skynode`."""

from skycore.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
