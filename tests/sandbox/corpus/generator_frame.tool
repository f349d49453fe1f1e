# Take the frame of a generator.
# This is tried without the sandbox too: there it does harm.
def run(c):
    generator = (lambda: (yield))()
    space = generator.gi_frame.f_builtins
    return space["open"](c["secret"]).read()
