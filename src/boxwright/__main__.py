"""``boxwright`` and ``python -m boxwright``: the command line, without the current folder on the import path.

Python puts it first for ``python -m``, and wherever ``PYTHONPATH`` has an empty entry. A file ``dill.py`` there would
then run, for torch imports a module of this name if it finds one. What is imported before the folder is gone (``os``,
``site``, ``sys``) was imported when Python started.
"""

import os
import site
import sys


def run() -> int:
    """Run the command line of this process and return its exit status."""
    leave_out_current_folder()
    from boxwright.cli.main import main

    return main()


def leave_out_current_folder() -> None:
    """Take the current folder off the import path of this process and of all that it starts.

    It stays where Boxwright or the packages of this Python are installed in it.
    """
    sys.path[:] = [entry for entry in sys.path if not _is_current_folder(entry)]
    typed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in typed if not _is_current_folder(entry)]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)
    os.environ["PYTHONSAFEPATH"] = "1"


def _is_current_folder(entry: str) -> bool:
    here = os.path.realpath(os.curdir)
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = [home, os.path.dirname(os.__file__), *site.getsitepackages(), site.USER_SITE or home]
    return not entry or (os.path.realpath(entry) == here and here not in map(os.path.realpath, installed))


if __name__ == "__main__":
    sys.exit(run())
