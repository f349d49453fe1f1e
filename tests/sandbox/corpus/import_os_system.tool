# Import os, and let a shell copy the secret.
# This is tried without the sandbox too: there it does harm.
def run(c):
    return __import__("os").system("cp " + c["secret"] + " " + c["marker"])
