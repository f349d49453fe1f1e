# Recurse in C, where no limit of Python counts.
# Not tried without the sandbox.
def run(c):
    x = ()
    for _ in range(10**6):
        x = (x,)
    return hash(x)
