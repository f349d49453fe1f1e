# Follow symbolic links that someone left in the workspace, to a file and to a folder.
# Not tried without the sandbox.
def run(c):
    found = []
    for path in ("link", "linkdir/secret", "linkdir", "chain", "loop", "linkproc/self/environ", "magic"):
        for action in (files.read_text, files.read_bytes, files.exists, files.list_folder):
            try:
                got = action(path)
                found.append(repr(got))
            except ToolError as error:
                found.append(type(error).__name__)
    return found
