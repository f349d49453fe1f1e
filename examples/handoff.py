"""Two processes, one conversation: the first reads a long text and dies in the middle of its reply, the second goes on.

    python examples/handoff.py [MODEL.gguf]

Without a model it makes one, in a second: its weights are drawn by lot, so it babbles, but always the same babble.
Needs: pip install 'morphogen[broker,llama]' gguf
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import morphogen

TEXT = "\n".join(
    f"Day {day}. The lighthouse keeper counts the ships that pass, and writes them down." for day in range(40)
)
REPLY: dict[str, Any] = {"max_tokens": 120, "temperature": 0.8, "top_k": 8, "seed": 7}


def load(model: str) -> Any:
    """Open a model as anybody does."""
    from llama_cpp import Llama

    threads = 1 if Path(model).stat().st_size < 100 << 20 else None  # more would only wait for each other
    return Llama(model, n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False)


def first(model: str, name: str) -> None:
    """Read the text and reply: what the process that will be killed does."""
    session = morphogen.session(name, load(model), every=16, events=True)  # tokens from one saved state to the next
    session.say(TEXT)
    for piece in session.generate(**REPLY):
        print(piece, end="", flush=True)
        time.sleep(0.01)  # an agent thinks, a reader reads


def second(model: str, name: str) -> str:
    """Go on where the first one stopped, and return the whole reply."""
    llm = load(model)
    with morphogen.session(name, llm, events=True) as session:
        began = time.perf_counter()
        loaded = session.load_continuity()
        took = 1e3 * (time.perf_counter() - began)
        print(f"process {os.getpid()} has all {loaded.tokens:,} tokens after {took:.0f} ms:", end=" ")
        print(f"{loaded.restored:,} restored, {loaded.recomputed} computed again")
        before = session.partial
        rest = "".join(session.resume())
        tokens = session.tokens
    print(f"it goes on: {rest[:60]!r}...")
    llm.reset()
    began = time.perf_counter()
    llm.eval(tokens[: loaded.tokens])
    again = 1e3 * (time.perf_counter() - began)
    print(f"reading all of it again takes {again:.0f} ms: {again / took:.0f} times as long")
    return before + rest


def main(model: str) -> None:
    """Start the first process, kill it, go on, and compare with a reply that nobody interrupted."""
    name = f"handoff-{os.getpid()}"
    command = [sys.executable, __file__, model, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read(40)
        process.kill()  # SIGKILL: it cannot say goodbye
    print(f"process {process.pid} said {said!r} and was killed")
    whole = second(model, name)
    with morphogen.session(f"{name}-undisturbed", load(model)) as session:
        session.say(TEXT)
        print("the same as if nobody had been killed:", "".join(session.generate(**REPLY)) == whole)
    shown = "what, tokens, restored, recomputed, pending"
    told = f"SELECT {shown} FROM kv_session_events WHERE session = '{name}' ORDER BY time, seq, idx"
    print(morphogen.query(told, wait=True))


def make_model(path: Path) -> str:
    """Write a small llama with a vocabulary of single characters; return its path."""
    import gguf
    import numpy as np

    width, layers, heads, feed = 128, 4, 4, 256
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(characters)]  # unknown, control, bytes, normal
    draw = np.random.default_rng(7)

    def weight(*shape: int) -> Any:
        return (draw.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_tensor("token_embd.weight", weight(len(words), width))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    output = 4 * weight(len(words), width)
    output[:259] = 0  # characters are likelier than bytes, and than an end
    writer.add_tensor("output.weight", output)
    shapes = {
        "attn_q": (width, width),
        "attn_k": (width, width),
        "attn_v": (width, width),
        "attn_output": (width, width),
    }
    shapes |= {"ffn_gate": (feed, width), "ffn_up": (feed, width), "ffn_down": (width, feed)}
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        for tensor, shape in shapes.items():
            writer.add_tensor(f"blk.{layer}.{tensor}.weight", weight(*shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        first(*sys.argv[1:])
    elif len(sys.argv) == 2:
        if not Path(sys.argv[1]).is_file():
            sys.exit(f"there is no model {sys.argv[1]}: give a GGUF file, or nothing")
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(make_model(Path(folder) / "babble.gguf"))
