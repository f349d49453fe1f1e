# A precision that takes all memory.
# Not tried without the sandbox.
import decimal


def run(c):
    decimal.getcontext().prec = 10**9
    return str(decimal.Decimal(1) / 7)[:10]
