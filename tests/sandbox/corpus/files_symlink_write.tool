# Write, append, remove and make folders through symbolic links.
# Not tried without the sandbox.
def run(c):
    found = []
    for path in ("linktarget", "linkdir/new", "linkdir/target", "link"):
        for action in (lambda p: files.write_text(p, "changed"), lambda p: files.append_text(p, "changed"), files.remove, files.make_folder):
            try:
                found.append(action(path))
            except ToolError as error:
                found.append(type(error).__name__)
    return found
