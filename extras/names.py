"""Names of files -> clips: whatever varies in the names of a folder's frames orders them."""

import datetime
import itertools
import re
import statistics

from extras.cli import InputError

JUMP = 1.5  # usual steps in time, or of a number; what is longer ends a clip
LONG_ENOUGH = 4  # a part that orders frames may give so many times the fewest clips

# Times as they stand in names, the more exact ones first: with separators or without.
_DATE = r"(?P<Y>18[5-9]\d|19\d\d|20\d\d){sep}(?P<m>0?[1-9]|1[0-2]){sep}(?P<d>[0-2]?\d|3[01])"
_DAY_FIRST = r"(?P<d>[0-2]\d|3[01]){sep}(?P<m>0[1-9]|1[0-2]){sep}(?P<Y>19\d\d|20\d\d)"
_DAY_OF_YEAR = r"(?P<Y>18[5-9]\d|19\d\d|20\d\d)[-_.]?(?P<j>[0-3]\d\d)"
_HOUR, _MINUTE, _SECOND = r"(?P<H>[01]\d|2[0-3])", r"{sep}(?P<M>[0-5]\d)", r"{sep}(?P<S>[0-5]\d)"
_FRACTION = r"[-_.,s]?(?P<f>\d|\d{{3}}|\d{{6}})"  # of a second
_CLOCKS = [_HOUR + _MINUTE + _SECOND + _FRACTION, _HOUR + _MINUTE + _SECOND, _HOUR + _MINUTE, _HOUR]
_FORMS = [
    *(date + r"\D*?" + clock for date in (_DATE, _DAY_FIRST, _DAY_OF_YEAR) for clock in _CLOCKS),
    _DATE,
    _DAY_FIRST,
    _DAY_OF_YEAR,
    r"(?P<Y>18[5-9]\d|19\d\d|20\d\d){sep}(?P<m>0[1-9]|1[0-2])",
    r"(?P<unix>1\d{{9}}(\.\d+)?)",  # seconds since 1970
    r"(?P<unix_ms>1\d{{12}})",
    *_CLOCKS[:2],
]
TIMES = [
    re.compile(rf"(?<!\d){form.format(sep=separator)}(?!\d)")
    for form in _FORMS
    for separator in (["", r"[-_.:/ hm]"] if "{sep}" in form else [""])
]
NUMBER, DECIMAL = re.compile(r"\d+"), re.compile(r"\d+(?:\.\d+)?")


def order_frames(files, note):
    """Put the files of one folder, each of them a frame, into clips.

    Args:
        files: paths.
        note: called with each line that the user should read.

    Returns:
        A list of clips, each a list of files in the order of time.

    Raises:
        InputError: two files are the same frame.
    """
    alike, clips = {}, []
    for file in files:
        alike.setdefault(re.sub(r"\d+", "0", file.stem), []).append(file)
    for group in alike.values():
        if len(files) > 1 and not NUMBER.search(group[0].stem):
            note(f"{group[0].name} is left out: a frame needs a number or a time in its name")
            continue
        by_clip = {}  # constant part of the name -> {number or time: file}
        for file, (rest, key) in zip(group, _rests_and_keys([file.stem for file in group])):
            frames = by_clip.setdefault(rest, {})
            if key in frames:
                raise InputError(f"{frames[key]} and {file} are the same frame: keep one of them")
            frames[key] = file
        for frames in by_clip.values():
            keys = sorted(frames)
            ends = jumps(keys)
            clips += [
                [frames[key] for key in keys[start:end]]
                for start, end in itertools.pairwise([0, *ends, len(keys)])
            ]
            if ends:
                before, after = frames[keys[ends[0] - 1]].name, frames[keys[ends[0]]].name
                note(
                    f"between {before} and {after}"
                    + (f", and at {len(ends) - 1} other places," if len(ends) > 1 else "")
                    + " frames are missing: a clip ends there"
                )
    return sorted(clips, key=lambda clip: natural(clip[0]))


def jumps(keys):
    """Where rising numbers or times make more than 1.5 usual steps: indices after the jump."""
    steps = [after - before for before, after in itertools.pairwise(keys)]
    usual = statistics.median(steps) if steps else 0
    return [n + 1 for n, step in enumerate(steps) if step > JUMP * usual]


def natural(path):
    """Key that sorts "clip-9" before "clip-10"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def _rests_and_keys(stems):
    """Names that differ in digits alone -> for each (what names its clip, what orders it)."""
    found = {}  # a part that varies, by where it stands in the first name: (keys, rests)
    for pattern in (*TIMES, _number_pattern(stems)):
        if not pattern.search(stems[0]):
            continue
        matches = [list(pattern.finditer(stem)) for stem in stems]
        if len({len(in_stem) for in_stem in matches}) > 1:
            continue
        for part in zip(*matches):
            span = part[0].span()
            if span in found or len({match[0] for match in part}) == 1:
                continue
            keys = [_key(match) for match in part]
            if None not in keys:
                found[span] = keys, _rests(stems, part, keys)
    if not found:
        return [(stem, 0) for stem in stems]
    clips = {span: len(set(rests)) for span, (_, rests) in found.items()}
    spans = [span for span in found if clips[span] <= LONG_ENOUGH * min(clips.values())]
    # The last part orders. Of those that rise with it, the first does that gives the fewest clips
    # (times are found before numbers).
    last = found[max(spans, key=lambda span: span[1])][0]
    spans = [span for span in spans if len(set(zip(found[span][0], last))) == len(set(last))]
    keys, rests = found[min(spans, key=clips.get)]
    return list(zip(rests, keys))


def _number_pattern(stems):
    """What a number is: with decimals, if all names have as many of them."""
    decimals = {
        tuple(len(number.partition(".")[2]) for number in DECIMAL.findall(stem)) for stem in stems
    }
    return DECIMAL if len(decimals) == 1 else NUMBER


def _rests(stems, part, keys):
    """What is left of names without a part of each, and without all that changes with its key."""
    rests = [stem[: m.start()] + "*" + stem[m.end() :] for stem, m in zip(stems, part)]
    numbers = [NUMBER.findall(rest) for rest in rests]
    columns = [
        column
        for column in zip(*numbers)
        if len(set(column)) > 1 and len(set(zip(column, keys))) > len(set(column))
    ]
    texts = list(zip(*columns)) if columns else [()] * len(stems)
    return texts if len(set(zip(texts, keys))) == len(keys) else rests


def _key(match):
    """A match of a number -> the number; of a time -> months or seconds, or None if it is none."""
    parts = {name: text for name, text in match.groupdict().items() if text}
    if not parts:
        text = match[0]
        return float(text) if "." in text else int(text)
    if "unix" in parts:
        return float(parts["unix"])
    if "unix_ms" in parts:
        return int(parts["unix_ms"]) / 1000
    if parts.keys() == {"Y", "m"}:
        return 12 * int(parts["Y"]) + int(parts["m"])
    number = {name: int(text) for name, text in parts.items()}
    try:
        date = datetime.datetime(number.get("Y", 1970), number.get("m", 1), number.get("d", 1))
    except ValueError:
        return None
    if not 0 < number.get("j", 1) <= 366:
        return None
    date += datetime.timedelta(
        days=number.get("j", 1) - 1,
        hours=number.get("H", 0),
        minutes=number.get("M", 0),
        seconds=number.get("S", 0) + float("0." + parts.get("f", "0")),
    )
    return (date - datetime.datetime(1970, 1, 1)).total_seconds()
