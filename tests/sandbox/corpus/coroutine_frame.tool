# Take the frame of a coroutine.
# This is tried without the sandbox too: there it does harm.
async def nothing():
    return 1


def run(c):
    coroutine = nothing()
    space = coroutine.cr_frame.f_builtins
    coroutine.close()
    return space["open"](c["secret"]).read()
