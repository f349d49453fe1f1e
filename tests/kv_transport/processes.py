"""Another Python process, told what to do a line at a time."""

import contextlib
import subprocess
import sys


class Other:
    """Another Python process that does what it is told, a line of Python at a time, and answers with one line."""

    def __init__(self, prelude: str = "") -> None:
        loop = (
            "import sys\n"
            f"exec({prelude!r})\n"
            "for line in sys.stdin:\n"
            "    try:\n"
            "        print(repr(eval(line.rstrip())), flush=True)\n"
            "    except Exception as error:\n"
            "        print(f'{type(error).__name__}: {error}', flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def kill(self) -> None:
        """End it with SIGKILL; it stays a zombie until `close`."""
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
