"""To open the log does not import what only addresses with ws:// need, and takes it from nobody."""

import subprocess
import sys

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_aiohttp_waits_until_it_is_used_and_is_then_the_real_one() -> None:
    code = (
        "import sys, morphogen.bus.connection\n"
        "print('aiohttp' in sys.modules, end=' ')\n"
        "from nats.aio import transport\n"
        "seen = transport.aiohttp.ClientSession\n"
        "import aiohttp\n"
        "print(seen is aiohttp.ClientSession, transport.aiohttp.WSMsgType.BINARY is aiohttp.WSMsgType.BINARY)"
    )
    assert said(code) == "False True True"


def test_who_imports_aiohttp_before_meanwhile_or_after_has_all_of_it() -> None:
    meanwhile = (
        "import sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'nats.js':\n"
        "            import aiohttp\n"
        "            import aiohttp.web\n"
        "            global seen; seen = aiohttp\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import morphogen.bus.connection\n"
        "import aiohttp\n"
        "print(aiohttp.ClientSession is seen.ClientSession, aiohttp.web is seen.web)"
    )
    assert said(meanwhile) == "True True"
    assert said("import aiohttp, morphogen.bus.connection as c; print(c.Connection, aiohttp.ClientSession)")
    assert said("import morphogen.bus.connection, aiohttp.web; print(aiohttp.ClientSession, aiohttp.web.Request)")
