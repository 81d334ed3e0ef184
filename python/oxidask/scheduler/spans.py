"""``scheduler.extensions["spans"]``: spans as Dask's own class, made from what the scheduler knows."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgpack
from distributed.protocol import pickle
from distributed.spans import Span

from oxidask.scheduler.groups import GroupView

if TYPE_CHECKING:
    from oxidask.scheduler.questions import Questions

logger = logging.getLogger("oxidask.spans")


class SpanView(Span):
    """A span as it was when it was asked for. Holds its parent, since nobody else does."""

    __slots__ = ("_holds",)

    def __init__(self, fields: dict[str, Any], parent: SpanView | None, history: list[tuple[float, int]]) -> None:
        super().__init__(tuple(fields["names"]), fields["ids"][-1], None, history)
        self._holds = parent
        self.enqueued = fields["enqueued"]
        earlier = sum(1 for at, _ in history if at <= self.enqueued)
        self._total_nthreads_offset = max(0, earlier - 1)
        self.groups = {GroupView(group) for group in fields["groups"]}
        self._cumulative_worker_metrics.update({tuple(what): amount for what, amount in fields["metrics"]})
        for metadata in filter(None, map(_unpickle, fields["metadata"])):
            self.add_metadata(metadata)
        self._code = {tuple(code): None for code in filter(None, map(_unpickle, fields["code"]))}
        if parent is not None:
            parent.children.append(self)

    @property
    def parent(self) -> SpanView | None:
        return self._holds


def _unpickle(header: bytes) -> Any:
    """What a client sent; it may come from a module that this environment lacks."""
    try:
        return pickle.loads(msgpack.unpackb(header)["pickled-obj"])
    except Exception:
        logger.warning("a span's description cannot be read", exc_info=True)
        return None


class Spans:
    """The extension. Each look gives a fresh picture."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    @property
    def spans(self) -> dict[str, SpanView]:
        """All spans by id, in the order in which they came."""
        found, state = self._questions.ask("attribute", name="spans_state")[0]
        if not found:
            raise RuntimeError("the scheduler does not tell its spans")
        history = [(at, count) for at, count in state["nthreads"]] or [(0.0, 0)]
        spans: dict[str, SpanView] = {}
        for fields in state["spans"]:
            ids = fields["ids"]
            spans[ids[-1]] = SpanView(fields, spans.get(ids[-2]) if len(ids) > 1 else None, history)
        return spans

    @property
    def root_spans(self) -> list[SpanView]:
        """Spans that are in no other."""
        return [span for span in self.spans.values() if span.parent is None]

    @property
    def spans_search_by_name(self) -> defaultdict[tuple[str, ...], list[SpanView]]:
        """Spans by their full name."""
        found = defaultdict(list)
        for span in self.spans.values():
            found[span.name].append(span)
        return found

    @property
    def spans_search_by_tag(self) -> defaultdict[str, list[SpanView]]:
        """Spans by each part of their name."""
        found = defaultdict(list)
        for span in self.spans.values():
            for tag in span.name:
                found[tag].append(span)
        return found

    def find_by_tags(self, *tags: str) -> Iterator[SpanView]:
        """Spans with any of these tags, without those that are in another one of them."""
        seen: set[SpanView] = set()
        with_tag = [span for span in self.spans.values() if set(tags) & set(span.name)]
        for span in sorted(with_tag, key=lambda span: len(span.name)):
            if span.parent not in seen:
                yield span
            seen.add(span)

    def merge_all(self) -> Span:
        """The sum of all spans."""
        return Span.merge(*self.root_spans)

    def merge_by_tags(self, *tags: str) -> Span:
        """The sum of all spans with any of these tags."""
        return Span.merge(*self.find_by_tags(*tags))
