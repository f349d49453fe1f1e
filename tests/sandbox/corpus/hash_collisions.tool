# Integers that all fall into one slot.
# Not tried without the sandbox.
def run(c):
    modulus = 2**61 - 1
    return len({modulus * n: n for n in range(1, 200000)})
