"""What runs on the far side of the sandbox: an interpreter that knows nothing but these files.

The host compiles them and hands them over as code objects, so that the far side starts with `python -I -S`, no path of
ours and no package. They import each other, built-in modules and a few C modules of the standard library, nothing else.
"""
