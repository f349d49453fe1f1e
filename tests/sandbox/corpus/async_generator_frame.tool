# Take the frame of an asynchronous generator.
# This is tried without the sandbox too: there it does harm.
async def nothing():
    yield 1


def run(c):
    return nothing().ag_frame.f_builtins["open"](c["secret"]).read()
