# Write more than a file may hold.
# Not tried without the sandbox.
def run(c):
    try:
        files.write_text("big", "x" * 900000)
        for _ in range(100):
            files.append_text("big", "x" * 900000)
    except ToolError as error:
        raise RuntimeError(str(error)) from None
