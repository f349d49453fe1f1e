"""The language server protocol, spoken by pygls: text in, answers out. What the answers are stands in `analysis.py`."""

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from lsprotocol import types as lsp
from pygls import uris
from pygls.lsp.server import LanguageServer
from pygls.workspace import PositionCodec, TextDocument

from morphogen.schemas.knowledge.diagnostics import Diagnostic
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.format import format_text
from morphogen.schemas.knowledge.tools import Signature
from morphogen.schemas.knowledge.tree import Span

from .analysis import Document, Target

_AFTER_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_SEVERITIES = {
    "error": lsp.DiagnosticSeverity.Error,
    "warning": lsp.DiagnosticSeverity.Warning,
    "note": lsp.DiagnosticSeverity.Information,
}
_KINDS = {
    "keyword": lsp.CompletionItemKind.Keyword,
    "function": lsp.CompletionItemKind.Function,
    "procedure": lsp.CompletionItemKind.Function,
    "fact": lsp.CompletionItemKind.Function,
    "variable": lsp.CompletionItemKind.Variable,
    "state": lsp.CompletionItemKind.Variable,
    "constant": lsp.CompletionItemKind.Constant,
    "field": lsp.CompletionItemKind.Field,
    "property": lsp.CompletionItemKind.Property,
    "case": lsp.CompletionItemKind.Struct,
    "type": lsp.CompletionItemKind.Class,
    "unit": lsp.CompletionItemKind.Unit,
    "module": lsp.CompletionItemKind.Module,
}


def serve(tools: Mapping[str, Signature]) -> None:
    """Serve one editor over standard input and output until it says goodbye."""
    server(tools).start_io()


def server(tools: Mapping[str, Signature]) -> LanguageServer:
    """Return a server that knows these tools, connected to nothing yet."""
    made = LanguageServer(
        "morphogen-knowledge",
        metadata.version("morphogen"),
        text_document_sync_kind=lsp.TextDocumentSyncKind.Full,  # pygls places changes by lines of Python's, which are more
    )

    known: dict[str, Document] = {}  # the last state of each open text, so that hovering does not check it again

    def document(uri: str) -> tuple[Document, TextDocument]:
        there = made.workspace.get_text_document(uri)
        path = uris.to_fs_path(uri) or uri
        asked = Document(there.source, path, tools, _open_texts(path))
        last = known.get(uri)
        if last is None or (last.text, last.open_texts) != (asked.text, asked.open_texts):
            known[uri] = asked
        return known[uri], there

    def _open_texts(path: str) -> dict[str, str]:
        """Return unsaved texts of other files, by the target with which this one would use them."""
        folder = Path(path).parent
        found = {}
        for uri, one in made.workspace.text_documents.items():
            other = uris.to_fs_path(uri)
            if other and other != path and Path(other).parent == folder:
                found[Path(other).name] = one.source
        return found

    def publish(uri: str) -> None:
        asked, there = document(uri)
        codec = made.workspace.position_codec
        found = [_diagnostic(one, asked.text, codec) for one in asked.diagnostics()]
        made.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, version=there.version))

    @made.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        known.clear()
        for uri in list(made.workspace.text_documents):  # others may use what was saved
            publish(uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        known.pop(params.text_document.uri, None)
        made.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(params.text_document.uri, []))

    @made.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        asked, there = document(params.text_document.uri)
        words = asked.hover(_offset(there, params.position, made.workspace.position_codec))
        return None if words is None else lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, words))

    @made.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        asked, there = document(params.text_document.uri)
        found = asked.definition(_offset(there, params.position, made.workspace.position_codec))
        return (
            None if found is None else _location(found, asked, params.text_document.uri, made.workspace.position_codec)
        )

    @made.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=["."]))
    def completion(params: lsp.CompletionParams) -> lsp.CompletionList:
        asked, there = document(params.text_document.uri)
        found = asked.complete(_offset(there, params.position, made.workspace.position_codec))
        items = [
            lsp.CompletionItem(
                one.label, kind=_KINDS.get(one.kind, lsp.CompletionItemKind.Reference), detail=one.detail or None
            )
            for one in found
        ]
        return lsp.CompletionList(is_incomplete=False, items=items)

    @made.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def formatting(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
        asked, _ = document(params.text_document.uri)
        try:
            text = format_text(asked.text)
        except KnowledgeError:
            return None  # what does not parse is left as it is; the diagnostics say why
        if text == asked.text:
            return []
        last = lsp.Position(len(_lines(asked.text)), 0)
        return [lsp.TextEdit(lsp.Range(lsp.Position(0, 0), last), text)]

    return made


def _lines(text: str) -> list[str]:
    """Return the lines of a text with their ends, as the protocol has them: no other character than these ends one."""
    return _AFTER_LINE.split(text)


def _offset(there: TextDocument, position: lsp.Position, codec: PositionCodec) -> int:
    """Return a client's position as a character offset."""
    lines = _lines(there.source)
    at = codec.position_from_client_units(lines, position)
    return sum(len(line) for line in lines[: at.line]) + at.character


def _range(text: str, start: int, end: int, codec: PositionCodec) -> lsp.Range:
    """Return character offsets as a client's range."""
    lines = _lines(text)

    def position(offset: int) -> lsp.Position:
        offset = min(max(offset, 0), len(text))
        line = 0
        while line < len(lines) - 1 and offset >= len(lines[line]):
            offset -= len(lines[line])
            line += 1
        return codec.position_to_client_units(lines, lsp.Position(line, min(offset, len(lines[line]))))

    return lsp.Range(position(start), position(end))


def _diagnostic(one: Diagnostic, text: str, codec: PositionCodec) -> lsp.Diagnostic:
    parts = [one.message]
    if one.expected:
        parts.append(f"expected {', '.join(one.expected)}")
    if one.hint:
        parts.append(one.hint)
    return lsp.Diagnostic(
        _range(text, one.span.start, _end(one.span, text), codec),
        "\n".join(parts),
        severity=_SEVERITIES[one.severity],
        code=one.code,
        source="morphogen",
    )


def _end(span: Span, text: str) -> int:
    """Mark no more than the first line of a finding, so that a whole system is never underlined."""
    newline = text.find("\n", span.start)
    end = max(span.end, span.start + 1)
    return end if newline < 0 else max(min(end, newline), span.start)


def _location(found: Target, asked: Document, uri: str, codec: PositionCodec) -> lsp.Location:
    where = uri if found.path == asked.path else uris.from_fs_path(str(Path(found.path).resolve())) or uri
    return lsp.Location(where, _range(found.text, found.start, found.end, codec))
