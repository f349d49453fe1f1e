"""What a tool may import, name by name, and the built-in names that it may use.

The table serves the grammar: a name is here if nothing reached from it leads to the interpreter, the clock, chance or the
outside. `MODULES` is also what a sandbox imports before it seals itself, as there are no files to import from after.
"""

TABLE: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "base64": "b64encode b64decode urlsafe_b64encode urlsafe_b64decode b32encode b32decode b16encode b16decode",
        "binascii": "hexlify unhexlify crc32",
        "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
        "calendar": "monthrange isleap weekday leapdays",
        "collections": "Counter OrderedDict defaultdict deque ChainMap",
        "copy": "copy deepcopy",
        "csv": "reader DictReader writer DictWriter QUOTE_ALL QUOTE_MINIMAL QUOTE_NONNUMERIC QUOTE_NONE",
        "datetime": "date datetime time timedelta timezone UTC",
        "decimal": "Decimal ROUND_HALF_UP ROUND_HALF_EVEN ROUND_HALF_DOWN ROUND_DOWN ROUND_UP ROUND_FLOOR ROUND_CEILING",
        "difflib": "SequenceMatcher get_close_matches unified_diff ndiff",
        "fractions": "Fraction",
        "functools": "reduce partial cmp_to_key",
        "hashlib": "sha256 sha1 sha512 sha3_256 md5 blake2b",
        "heapq": "heappush heappop heapify heapreplace heappushpop merge nlargest nsmallest",
        "html": "escape unescape",
        "io": "StringIO BytesIO",
        "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile "
        "filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest",
        "json": "loads dumps JSONDecodeError",
        "math": "acos asin atan atan2 ceil comb copysign cos cosh degrees dist e erf exp expm1 fabs factorial floor fmod "
        "frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 modf nan "
        "perm pi pow prod radians sin sinh sqrt tan tanh tau trunc",
        "operator": "add sub mul truediv floordiv mod neg itemgetter eq ne lt le gt ge not_ and_ or_ xor contains",
        "re": "compile search match fullmatch split findall finditer sub subn escape error Pattern Match "
        "IGNORECASE MULTILINE DOTALL VERBOSE ASCII I M S X A",
        "statistics": "mean fmean median median_low median_high mode multimode stdev pstdev variance pvariance quantiles "
        "harmonic_mean geometric_mean correlation linear_regression",
        "string": "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits punctuation whitespace capwords",
        "textwrap": "dedent indent wrap fill shorten",
        "typing": "Any Optional Union List Dict Tuple Set Iterable Iterator Sequence Mapping Callable Literal",
        "collections.abc": "Iterable Iterator Sequence Mapping Callable Set",
        "unicodedata": "normalize category name numeric decimal digit combining",
        "urllib.parse": "quote quote_plus unquote unquote_plus urlencode urljoin urlparse urlsplit urlunsplit parse_qs parse_qsl",
    }.items()
}  # fmt: skip

MODULES = ("__future__", *sorted(TABLE))

# What the interpreter itself imports on first use, from files that are out of reach by then.
ALWAYS = (
    "_strptime", "encodings.ascii", "encodings.latin_1", "encodings.utf_8_sig", "encodings.utf_16", "encodings.utf_16_le",
    "encodings.utf_16_be", "encodings.utf_32", "encodings.cp1252", "encodings.idna", "encodings.hex_codec", "traceback",
)  # fmt: skip

BUILTINS = frozenset(
    [
        "abs",
        "all",
        "any",
        "ascii",
        "bin",
        "bool",
        "bytearray",
        "bytes",
        "chr",
        "complex",
        "dict",
        "divmod",
        "enumerate",
        "filter",
        "float",
        "frozenset",
        "hex",
        "int",
        "isinstance",
        "issubclass",
        "iter",
        "len",
        "list",
        "map",
        "max",
        "min",
        "next",
        "object",
        "oct",
        "ord",
        "pow",
        "print",
        "range",
        "repr",
        "reversed",
        "round",
        "set",
        "slice",
        "sorted",
        "str",
        "sum",
        "tuple",
        "zip",
        "True",
        "False",
        "None",
        "NotImplemented",
        "ArithmeticError",
        "AssertionError",
        "AttributeError",
        "Exception",
        "FileNotFoundError",
        "IndexError",
        "KeyError",
        "LookupError",
        "NameError",
        "NotImplementedError",
        "OSError",
        "OverflowError",
        "PermissionError",
        "RecursionError",
        "RuntimeError",
        "StopIteration",
        "TimeoutError",
        "TypeError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "UnicodeError",
        "ValueError",
        "ZeroDivisionError",
        "ToolError",
    ]
)
