# Raise what is no Exception.
# Not tried without the sandbox.
def run(c):
    raise SystemExit(c["host"])
