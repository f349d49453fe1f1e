# Print a gigabyte.
# Not tried without the sandbox.
def run(c):
    line = "x" * (1 << 20)
    for _ in range(1024):
        print(line)
    raise RuntimeError("done")
