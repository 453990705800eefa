"""One target under atheris, in this process: `python tests/fuzz/one.py NAME [libFuzzer's options] CORPUS`."""

import sys

import atheris

# Coverage counts what was instrumented while it was imported.
with atheris.instrument_imports(include=["offhook"]):
    from targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].run)
    atheris.Fuzz()
