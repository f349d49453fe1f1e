# Return something nested a thousand times, or in itself.
# Not tried without the sandbox.
def run(c):
    x = []
    x.append(x)
    return x
