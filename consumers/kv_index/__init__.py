"""Who holds which prefix of tokens, in our own workers and in other engines.

`PrefixIndex` folds the log's KV events and finds the longest prefix of a prompt that somebody holds; `IndexServer` is that
as a process, `longest_prefix` asks it. `Listener` hears what vLLM, SGLang or Dynamo say of their caches and writes it into
the log. The room knows no engine but by its messages, and moves no bytes of caches.
"""

from .chains import root_of
from .errors import BadPayload, BadQuestion, KvIndexError, NoIndex, NotListening
from .feed import Counts, DynamoFeed, VllmFeed
from .holders import Held, Holder, Match
from .listen import DIALECTS, Endpoint, Listener
from .prefix_index import PrefixIndex
from .service import Answer, IndexServer, ask, longest_prefix
from .sources import replay_of

__all__ = [
    "DIALECTS",
    "Answer",
    "BadPayload",
    "BadQuestion",
    "Counts",
    "DynamoFeed",
    "Endpoint",
    "Held",
    "Holder",
    "IndexServer",
    "KvIndexError",
    "Listener",
    "Match",
    "NoIndex",
    "NotListening",
    "PrefixIndex",
    "VllmFeed",
    "ask",
    "longest_prefix",
    "replay_of",
    "root_of",
]
