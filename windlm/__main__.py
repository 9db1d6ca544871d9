"""``python -m windlm``, the same as the command ``windlm``."""

from .cli import main

if __name__ == "__main__":
    main()
