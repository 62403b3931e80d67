"""CTC prefix beam search, which finds the most likely labelings of a recording, each summed over its paths."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.search.hot_words import HotWords
from models.search.hypotheses import Hypothesis, finite_log_probs


class _Beam(NamedTuple):
    """The N labelings in the beam.

    Attributes:
        nodes: int64 [N], nodes of the labelings in `_Tree`.
        blank: float64 [N], log-probability of their paths that end in a blank; -inf if these were dropped.
        token: float64 [N], log-probability of their paths that end in their last token.
    """

    nodes: np.ndarray
    blank: np.ndarray
    token: np.ndarray


class _Tree:
    """All labelings that were ever in the beam, as nodes with parents; node 0 is the empty labeling."""

    def __init__(self, hot_words: HotWords | None) -> None:
        self.parents, self.tokens = [-1], [-1]
        self._children: dict[tuple[int, int], int] = {}
        self._hot_words = hot_words
        self._states = [hot_words.begin()] if hot_words else []
        self.bonuses = [0.0]

    def child(self, node: int, token: int) -> int:
        found = self._children.get((node, token))
        if found is None:
            found = self._children[node, token] = len(self.parents)
            self.parents.append(node)
            self.tokens.append(token)
            if self._hot_words:
                state = self._hot_words.extend(self._states[node], token)
                self._states.append(state)
                self.bonuses.append(self._hot_words.score(state))
        return found

    def labeling(self, node: int) -> tuple[int, ...]:
        found = []
        while node > 0:
            found.append(self.tokens[node])
            node = self.parents[node]
        return tuple(reversed(found))

    def bonus_after(self, node: int, token: int) -> float:
        assert self._hot_words is not None
        return self._hot_words.score(self._hot_words.extend(self._states[node], token))

    def final_bonus(self, node: int) -> float:
        return self._hot_words.final_score(self._states[node]) if self._hot_words else 0.0


class PrefixBeamSearch:
    """CTC prefix beam search (Hannun et al. 2014, https://arxiv.org/abs/1408.2873) without a language model.

        search = PrefixBeamSearch(beam_size=50, num_hypotheses=3)
        best, *others = search(log_probs)  # float [F, V]
        text = tokenizer.decode(best.tokens)

    The paths of a labeling that end in a blank and those that end in a token are separate entries of the beam. So a
    beam of one entry follows the most likely token of each frame, as `models.ctc.greedy.greedy_decode` does, and a beam
    that drops nothing finds the most probable labeling.
    """

    def __init__(
        self,
        *,
        beam_size: int,
        beam_tokens: int = 0,
        beam_threshold: float = float("inf"),
        num_hypotheses: int = 1,
        hot_words: HotWords | None = None,
        blank_id: int = 0,
    ) -> None:
        """Makes a search.

        Args:
            beam_size: Entries kept from frame to frame.
            beam_tokens: Most likely tokens of a frame to try; 0 = all.
            beam_threshold: Distance in nats below the best entry at which others are dropped.
            num_hypotheses: Largest number of labelings to return.
            hot_words: Words to prefer.
            blank_id: Index of the blank.
        """
        self._beam_size = beam_size
        self._beam_tokens = beam_tokens
        self._beam_threshold = beam_threshold
        self._num_hypotheses = num_hypotheses
        self._hot_words = hot_words if hot_words else None
        self._blank_id = blank_id

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Returns at least one labeling, best first.

        Args:
            log_probs: float [F, V], log-softmax of the logits of the valid frames.
        """
        tree = _Tree(self._hot_words)
        beam = _Beam(np.zeros(1, np.int64), np.zeros(1), np.full(1, -np.inf))
        for frame in finite_log_probs(log_probs).astype(np.float64):
            beam = self._advance(tree, beam, frame)
        scores = np.logaddexp(beam.blank, beam.token) + [tree.final_bonus(int(node)) for node in beam.nodes]
        order = np.argsort(-scores, kind="stable")[: self._num_hypotheses]
        return [Hypothesis(tree.labeling(int(beam.nodes[i])), float(scores[i])) for i in order]

    def _advance(self, tree: _Tree, beam: _Beam, frame: np.ndarray) -> _Beam:
        """Returns the beam after one more frame, float64 [V]."""
        tried = self._choose_tokens(frame)
        num_labelings, num_tried = len(beam.nodes), len(tried)
        last = np.array([tree.tokens[node] for node in beam.nodes], np.int64)
        both = np.logaddexp(beam.blank, beam.token)
        blank = both + frame[self._blank_id]
        token = beam.token + np.where(last >= 0, frame[last], -np.inf)
        # A repeated token starts a new label only after a blank.
        is_repeat = tried[np.newaxis, :] == last[:, np.newaxis]
        longer = np.where(is_repeat, beam.blank[:, np.newaxis], both[:, np.newaxis]) + frame[tried]
        # An extended labeling may be in the beam already; then add its paths to that entry.
        row_of = {int(node): row for row, node in enumerate(beam.nodes)}
        column_of = {int(name): column for column, name in enumerate(tried)}
        for row, node in enumerate(beam.nodes):
            parent = row_of.get(tree.parents[node])
            column = column_of.get(int(last[row]))
            if parent is not None and column is not None:
                token[row] = np.logaddexp(token[row], longer[parent, column])
                longer[parent, column] = -np.inf
        scores = np.concatenate([blank, token, longer.ravel()])
        ranks = scores
        if self._hot_words:
            bonuses = np.array([tree.bonuses[node] for node in beam.nodes])
            grown = [[tree.bonus_after(int(node), int(name)) for name in tried] for node in beam.nodes]
            ranks = scores + np.concatenate([bonuses, bonuses, np.ravel(grown)])
        # Of equal entries keep the one that ends in the smaller token id, as argmax does.
        ends_in = np.concatenate([np.full(num_labelings, self._blank_id), last, np.tile(tried, num_labelings)])
        kept: dict[int, list[float]] = {}
        for entry in self._choose_entries(ranks, ends_in):
            place, score = int(entry) - 2 * num_labelings, float(scores[entry])
            if place < 0:
                node, is_token = int(beam.nodes[entry % num_labelings]), int(entry >= num_labelings)
            else:
                parent_node = int(beam.nodes[place // num_tried])
                node, is_token = tree.child(parent_node, int(tried[place % num_tried])), 1
            kept.setdefault(node, [-np.inf, -np.inf])[is_token] = score
        ends = np.array(list(kept.values()))
        return _Beam(np.array(list(kept), np.int64), ends[:, 0], ends[:, 1])

    def _choose_tokens(self, frame: np.ndarray) -> np.ndarray:
        """Returns the ids of the tokens to try, without the blank."""
        count = self._beam_tokens
        tried = np.argsort(-frame, kind="stable")[:count] if 0 < count < len(frame) else np.arange(len(frame))
        return np.sort(tried[tried != self._blank_id])

    def _choose_entries(self, ranks: np.ndarray, ends_in: np.ndarray) -> np.ndarray:
        """Returns the indices of the entries to keep, best first."""
        if len(ranks) > self._beam_size:
            least = np.partition(ranks, -self._beam_size)[-self._beam_size]
            candidates = np.flatnonzero((ranks >= least) & np.isfinite(ranks))
        else:
            candidates = np.flatnonzero(np.isfinite(ranks))
        order = candidates[np.lexsort((ends_in[candidates], -ranks[candidates]))][: self._beam_size]
        return order[ranks[order] >= ranks[order[0]] - self._beam_threshold]
