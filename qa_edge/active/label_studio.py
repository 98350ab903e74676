"""Label Studio's JSON: tasks to import there, and the annotations that it exports.

Tasks are those of its own template "Question Answering" (HumanSignal/label-studio,
`label_studio/annotation_templates/natural-language-processing/question-answering/config.yml`): data `text` and
`question`, and a span of `text` labelled Answer under the name `answer`. What surrounds them is the task format of
https://labelstud.io/guide/task_format; offsets are those of https://labelstud.io/tags/text. They count from 0, the end
is exclusive, and they count what JavaScript does, UTF-16 units: behind an emoji they are off by one in Python
(HumanSignal/label-studio, issue 1347). `Region.in_context` knows both ways. In the text that was marked a line break is
written as a backslash and an n (its `selection-tools.js`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_edge.squad import Squad
from qa_edge_runtime.errors import DataError

_LINE_BREAK = re.compile(r"[\n\r]")
ANSWER = "answer"
NO_ANSWER = "no_answer"
CONFIG = """\
<View>
  <Style>.htx-text{ white-space: pre-wrap; }</Style>
  <Header value="Mark the shortest piece of the text that answers the question"/>
  <Text name="question" value="$question"/>
  <Labels name="answer" toName="text">
    <Label value="Answer" maxUsages="1" hotkey="a"/>
  </Labels>
  <Text name="text" value="$text"/>
  <Choices name="no_answer" toName="text" choice="multiple">
    <Choice value="No answer" hotkey="n"/>
  </Choices>
</View>
"""
"""Labelling interface for the tasks: Label Studio's own template, white space kept so that offsets are exact, and a way
to say that the text has no answer."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A marked piece of the text.

    :param text: what was marked, or None where the export leaves it out.
    :param utf16: the offsets are Label Studio's, which should count UTF-16 units; else they should count characters.
    """

    start: int
    end: int
    text: str | None
    utf16: bool = False

    def in_context(self, context: str) -> tuple[int, int] | None:
        """The marked range as characters of Python's string, without white space at its ends; None if it is not there.

        Where the text does not stand there as the offsets should be counted, they are taken in the other way, which is
        the same where no character is beyond U+FFFF. Without a text they are UTF-16 units.
        """
        for start, end in self._readings(context):
            found = context[start:end]
            marked = (None, found, _LINE_BREAK.sub(r"\\n", found))
            if 0 <= start < end <= len(context) and found.strip() and self.text in marked:
                first = start + len(found) - len(found.lstrip())
                return first, first + len(found.strip())
        return None

    def _readings(self, context: str) -> Iterator[tuple[int, int]]:
        characters = [] if self.text is None else [(self.start, self.end)]
        units = list(self._of_units(context))
        yield from (*units, *characters) if self.utf16 else (*characters, *units)

    def _of_units(self, context: str) -> Iterator[tuple[int, int]]:
        units = context.encode("utf-16-le")
        if 0 <= self.start < self.end <= len(units) // 2:
            # Half of a character is not one.
            before, marked = units[: 2 * self.start], units[2 * self.start : 2 * self.end]
            try:
                start = len(before.decode("utf-16-le"))
                yield start, start + len(marked.decode("utf-16-le"))
            except UnicodeDecodeError:
                return


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What one annotator said about one question.

    :param question_id: as the task has it; "" if it has none.
    :param context: the task's text, or None if the export leaves it out.
    :param regions: the pieces marked as an answer; none and not `impossible` says nothing.
    :param impossible: the annotator says that the text has no answer.
    :param other_labels: what else was marked, by labels that are not those of our interface.
    """

    question_id: str
    annotator: str
    context: str | None
    regions: tuple[Region, ...]
    impossible: bool
    other_labels: tuple[str, ...] = ()


def tasks(squad: Squad, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Tasks for Label Studio's import, in the order of `ids`.

    :raises KeyError: if the data have no question of an id.
    """
    by_id = {question.id: (index, paragraph, question) for index, paragraph, question in squad.items()}
    made = []
    for identity in ids:
        index, paragraph, question = by_id[identity]
        data = {"id": identity, "question": question.text, "text": paragraph.context}
        made.append({"data": {**data, "title": squad.articles[index].title}})
    return made


def parse_export(root: Any, path: str | Path) -> list[Annotation]:
    """The annotations of what Label Studio exports as JSON; those that were skipped there are left out.

    :param root: the parsed file.
    :raises DataError: if it is of another format, JSON-MIN included.
    """
    if not isinstance(root, list) or not all(isinstance(task, dict) for task in root):
        raise DataError(f"{path} is no list of tasks; expected what Label Studio exports as JSON")
    found = []
    for number, task in enumerate(root):
        where = f"{path}: task {number}"
        data, said = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(said, list):
            raise DataError(
                f'{where} has no "data" and "annotations"; expected what Label Studio exports as JSON (not JSON-MIN)'
            )
        identity, context = data.get("id"), data.get("text")
        for annotation in said:
            if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
                raise DataError(f'{where} has an annotation without a list "result"; export it again as JSON')
            if annotation.get("was_cancelled"):
                continue
            regions, impossible, others = _result(annotation["result"], where)
            found.append(
                Annotation(
                    question_id=str(identity) if type(identity) in (str, int) else "",
                    annotator=_annotator(annotation.get("completed_by")),
                    context=context if isinstance(context, str) else None,
                    regions=regions,
                    impossible=impossible,
                    other_labels=others,
                )
            )
    return found


def _result(result: Sequence[Any], where: str) -> tuple[tuple[Region, ...], bool, tuple[str, ...]]:
    """The regions of an annotation, whether it says that there is no answer, and the labels of other regions."""
    regions, impossible, others = [], False, []
    for one in result:
        value = one.get("value") if isinstance(one, dict) else None
        if not isinstance(value, dict):
            continue
        if one.get("from_name") == NO_ANSWER:
            impossible = impossible or bool(value.get("choices"))
        elif one.get("type") == "labels" and (one.get("from_name") == ANSWER or _names_answer(value.get("labels"))):
            start, end = _offset(value.get("start"), where), _offset(value.get("end"), where)
            text = value.get("text")
            regions.append(Region(start=start, end=end, text=text if isinstance(text, str) else None, utf16=True))
        elif "start" in value and "end" in value:
            labels = value.get(str(one.get("type")))
            others += labels if isinstance(labels, list) else [one.get("type")]
    return tuple(regions), impossible, tuple(dict.fromkeys(str(label) for label in others))


def _names_answer(labels: Any) -> bool:
    return isinstance(labels, list) and "Answer" in labels


def _offset(value: Any, where: str) -> int:
    # Its documentation calls them strings, its exports hold numbers.
    if type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16):
        return int(value)
    raise DataError(f"{where} has the offset {value!r:.40}; expected a whole number, as Label Studio exports it")


def _annotator(value: Any) -> str:
    """Who annotated: a number, or an object with one, by version and settings."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("email", "id") if value.get(key) is not None), None)
    return "unknown" if value is None else str(value)
