"""Which of the teacher's word pieces speaks for which of the student's tokens (paper, section 4.1.3).

Both sides know their characters, so a piece is named by its range in the context, whatever its tokenizer marks it with
(`##`, `Ġ`, `▁`). `rule` is the paper's two-pointer comparison of strings; `offset` goes by the ranges alone.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qa_edge_runtime.errors import DataError, InputError

STRATEGIES = ("rule", "offset")

NO_PIECE = -1

IndexArray = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class _Ranges:
    """Character ranges, ascending: `index` says which of the ranges that were handed in each one is."""

    index: IndexArray
    start: IndexArray
    end: IndexArray


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The pieces whose logits the student's tokens learn from.

    :param start_piece: index of the piece that gives the start logit, int32, shape (context_tokens,); -1 for none.
    :param end_piece: index of the piece that gives the end logit; -1 exactly where `start_piece` is -1.
    """

    start_piece: IndexArray
    end_piece: IndexArray

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True where the token has a teacher logit, shape (context_tokens,)."""
        return self.start_piece >= 0


def align(
    strategy: str,
    context: str,
    token_starts: ArrayLike,
    token_ends: ArrayLike,
    piece_starts: ArrayLike,
    piece_ends: ArrayLike,
) -> Alignment:
    """Align the student's tokens with the teacher's pieces of the same context.

    White space at either end of a range is ignored (BPE and SentencePiece count the space before a word to its piece),
    so a token or piece of nothing else takes no part.

    :param strategy: `rule` (the paper's, section 4.1.3) or `offset` (start from the first overlapping piece, end from
        the last).
    :param context: the text that all ranges refer to.
    :param token_starts: first character of each token, integers, shape (context_tokens,), ascending.
    :param token_ends: character after each token, same shape.
    :param piece_starts: first character of each piece, integers, shape (pieces,), ascending.
    :param piece_ends: character after each piece, same shape.
    :raises InputError: if the strategy is unknown.
    :raises DataError: if a range does not lie in the context, or starts and ends differ in number.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"alignment strategy {strategy!r} is unknown: choose one of {', '.join(STRATEGIES)}")
    tokens = _checked(context, token_starts, token_ends, "token")
    pieces = _checked(context, piece_starts, piece_ends, "piece")
    solid = np.flatnonzero([not character.isspace() for character in context])
    chosen = np.full((2, tokens.start.size), NO_PIECE, dtype=np.int32)
    if strategy == "offset":
        _align_by_offset(_strip(tokens, solid), _strip(pieces, solid), chosen)
    else:
        _align_by_rule(context, _strip(tokens, solid), _unshared(_strip(pieces, solid), solid), chosen)
    return Alignment(start_piece=chosen[0], end_piece=chosen[1])


def coverage(alignment: Alignment) -> float:
    """Share of the tokens that have a teacher logit, 0 to 1; 1 for a context without tokens."""
    return float(alignment.mask.mean()) if alignment.start_piece.size else 1.0


def align_logits(
    alignment: Alignment, start_logits: NDArray[np.floating], end_logits: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Take the teacher's logits to the student's tokens.

    :param alignment: of this context.
    :param start_logits: the teacher's, per piece, float, shape (pieces,).
    :param end_logits: same shape.
    :return: start logits, end logits (float32, 0 where there is none) and the mask of the tokens that have them, each
        of shape (context_tokens,).
    """
    mask = alignment.mask
    start = np.zeros(mask.shape, dtype=np.float32)
    end = np.zeros(mask.shape, dtype=np.float32)
    start[mask] = start_logits[alignment.start_piece[mask]]
    end[mask] = end_logits[alignment.end_piece[mask]]
    return start, end, mask


def fold(text: str) -> str:
    """Lower-case ASCII of a token, as the paper compares them; a text without any ASCII is only lower-cased.

    Accents are split off (NFKD) before what is not ASCII is dropped; white space and control characters inside are
    dropped too, as teachers' tokenizers do.
    """
    if text.isascii() and text.isprintable() and " " not in text:
        return text.lower()
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return "".join(letter for letter in ascii_only.lower() if "!" <= letter <= "~") or text.lower()


def _is_folded(folded: str) -> bool:
    """Whether `fold` found something ASCII to keep."""
    return folded.isascii() and folded.isprintable()


def _align_by_offset(tokens: _Ranges, pieces: _Ranges, chosen: IndexArray) -> None:
    """Write the first and last overlapping piece of each token into `chosen`, shape (2, context_tokens)."""
    if not pieces.index.size:
        return
    first = np.searchsorted(pieces.end, tokens.start, side="right")
    last = np.searchsorted(pieces.start, tokens.end, side="left") - 1
    found = first <= last
    chosen[0, tokens.index[found]] = pieces.index[first[found]]
    chosen[1, tokens.index[found]] = pieces.index[last[found]]


def _align_by_rule(context: str, tokens: _Ranges, pieces: _Ranges, chosen: IndexArray) -> None:
    """Walk both sides with one pointer each, as section 4.1.3 does, and write the pieces kept into `chosen`.

    The paper says nothing of tokens that neither of its two steps explains (a piece that the teacher's tokenizer
    dropped, letters that have no ASCII form): here they get no logit, and the walk goes on at the next token and the
    first piece that reaches into it, so that one such token never costs the rest of the text its logits.
    """
    token_start, token_end = tokens.start.tolist(), tokens.end.tolist()
    piece_start, piece_end = pieces.start.tolist(), pieces.end.tolist()
    token_texts = [fold(context[start:end]) for start, end in zip(token_start, token_end, strict=True)]
    piece_texts = [fold(context[start:end]) for start, end in zip(piece_start, piece_end, strict=True)]
    token = piece = 0
    while token < len(token_texts) and piece < len(piece_texts):
        if piece_end[piece] <= token_start[token]:
            piece += 1
            continue
        if token_end[token] <= piece_start[piece]:
            token += 1
            continue
        # What is left of either side's text after the part that both have; one side always begins with the other.
        last_token, last_piece = token, piece
        token_rest, piece_rest = token_texts[token], piece_texts[piece]
        while token_rest != piece_rest:
            # A text that folding left as it was (`Ł`) has vanished from a longer one of the other side (`Łódź`): there
            # it is the empty string, a prefix of anything, so it joins the group and matches nothing.
            if token_rest.startswith(piece_rest) or (_is_folded(token_rest) and not _is_folded(piece_rest)):
                token_rest = token_rest.removeprefix(piece_rest)
                last_piece += 1
                if last_piece == len(piece_texts) or piece_start[last_piece] >= token_end[last_token]:
                    break
                piece_rest = piece_texts[last_piece]
            elif piece_rest.startswith(token_rest) or (_is_folded(piece_rest) and not _is_folded(token_rest)):
                piece_rest = piece_rest.removeprefix(token_rest)
                last_token += 1
                if last_token == len(token_texts) or token_start[last_token] >= piece_end[last_piece]:
                    break
                token_rest = token_texts[last_token]
            else:
                break
        else:
            chosen[:, tokens.index[token]] = pieces.index[piece]
            token, piece = last_token + 1, last_piece + 1
            continue
        token += 1


def _checked(context: str, starts: ArrayLike, ends: ArrayLike, kind: str) -> _Ranges:
    start = np.asarray(starts, dtype=np.int32).reshape(-1)
    end = np.asarray(ends, dtype=np.int32).reshape(-1)
    if start.size != end.size:
        raise DataError(f"{start.size} {kind} starts but {end.size} {kind} ends: expected equal numbers")
    if start.size and (start.min() < 0 or end.max() > len(context)):
        raise DataError(
            f"the {kind}s reach from character {start.min()} to {end.max()}, but the context has {len(context)}: "
            "their offsets belong to another text, make them again"
        )
    return _Ranges(index=np.arange(start.size, dtype=np.int32), start=start, end=end)


def _strip(ranges: _Ranges, solid: NDArray[np.intp]) -> _Ranges:
    """Strip white space from both ends of all ranges and drop those that hold nothing else.

    :param solid: positions of the context's characters that are not white space, ascending.
    """
    first = np.searchsorted(solid, ranges.start, side="left")
    last = np.searchsorted(solid, ranges.end, side="left") - 1
    kept = first <= last
    start = solid[first[kept]].astype(np.int32)
    end = solid[last[kept]].astype(np.int32) + np.int32(1)
    # A normaliser may swap combining marks, and with them the ranges of their pieces; the search needs ascending ones.
    start = np.minimum.accumulate(start[::-1])[::-1]
    return _Ranges(index=ranges.index[kept], start=start, end=np.maximum.accumulate(end))


def _unshared(ranges: _Ranges, solid: NDArray[np.intp]) -> _Ranges:
    """Give each character to the first range that holds it.

    Pieces of one character's bytes (BPE), or of the letters it stands for (`½` in SentencePiece), all have that
    character's range, and would spell it several times when their texts are put together.
    """
    start = ranges.start.copy()
    start[1:] = np.maximum(start[1:], ranges.end[:-1])
    return _strip(_Ranges(index=ranges.index, start=start, end=ranges.end), solid)
