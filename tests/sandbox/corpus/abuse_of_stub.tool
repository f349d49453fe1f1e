# Look for the host behind the stubs.
# This is tried without the sandbox too: there it does harm.
def run(c):
    import sys
    stub = globals().get("files")
    seen = []
    for name in dir(stub):
        function = getattr(stub, name)
        for cell in getattr(function, "__closure__", None) or ():
            seen.append(repr(cell.cell_contents)[:100])
    seen.append(open(c["secret"]).read())
    return seen
