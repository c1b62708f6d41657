"""Starts a Ray worker as Ray's setup_worker.py does, which imports Ray before the worker does so.

That import is most of a second of a core, in each of the many workers that the tests have. What the
tests' workers do not need (containers, other languages) is left to Ray's own script.
"""

import json
import os
import re
import sys

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
OTHERS = ("command_prefix", "override_worker_entrypoint")


def main(argv: list[str]) -> None:
    """Become the worker of a raylet's command; what was given as runtime environment applies."""
    context, words = {}, []
    for word in argv:
        if word.startswith(CONTEXT):
            context = json.loads(word.removeprefix(CONTEXT) or "{}")
        elif not word.startswith(LANGUAGE):
            words.append(word)
    if f"{LANGUAGE}PYTHON" not in argv or any(map(context.get, OTHERS)):
        import ray

        folder = os.path.join(os.path.dirname(ray.__file__), "_private", "workers")
        words = [os.path.join(folder, "setup_worker.py"), *argv]
    for name, value in (context.get("env_vars") or {}).items():
        os.environ[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    python = context.get("py_executable") or sys.executable
    os.execv(python, [python, *words])


if __name__ == "__main__":
    main(sys.argv[1:])
