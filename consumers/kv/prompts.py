"""From messages to tokens: only what is new is tokenized, as long as the template leaves what was there as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .conversation import Message
from .errors import SessionError

Render = Callable[[Sequence[Message], bool], str]
Tokenize = Callable[[str, bool], list[int]]


@dataclass(frozen=True)
class Growth:
    """What leads from one prompt to the next: how many tokens stay (None: all), those that follow, and their text.

    Where tokens go, the text is that of the whole prompt.
    """

    cut: int | None
    tokens: list[int]
    shown: str


def plain(messages: Sequence[Message], asking: bool) -> str:
    """Render messages one after the other, as they are: for models without a template, and for text to be continued."""
    return "".join(message.text for message in messages)


def render_of(template: tuple[str, str, str] | None) -> Render:
    """Return what renders messages by a model's template (itself, and how it writes beginning and end), or plainly."""
    return plain if template is None else chat_template(*template)


def chat_template(template: str, bos: str, eos: str) -> Render:
    """Return what renders messages by the Jinja template of a model's file, in a sandbox.

    What it returns raises SessionError where the template does not take such messages.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    formatters = {
        asking: Jinja2ChatFormatter(template=template, eos_token=eos, bos_token=bos, add_generation_prompt=asking)
        for asking in (False, True)
    }

    def render(messages: Sequence[Message], asking: bool) -> str:
        given = [{"role": message.role, "content": message.text} for message in messages]
        try:
            return str(formatters[asking](messages=given).prompt)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise SessionError(f"the model's chat template does not take this conversation: {reason}") from error

    return render


def grow(new: str, shown: str, tokens: Sequence[int], tokenize: Tokenize) -> Growth:
    """Return what leads from `tokens`, which stand for the text `shown`, to tokens that stand for `new`.

    Where the new text goes on from the old one only the rest is tokenized (`tokenize(text, first)`); else all is,
    and what both begin with stays.
    """
    if tokens and new.startswith(shown):
        rest = new[len(shown) :]
        return Growth(None, tokenize(rest, False) if rest else [], rest)
    fresh = tokenize(new, True)
    same = 0
    for left, right in zip(tokens, fresh, strict=False):
        if left != right:
            break
        same += 1
    return Growth(same if tokens else None, fresh[same:], new)
