"""Names of files -> clips: whatever varies in the names of a folder's frames orders them."""

import contextlib
import datetime
import itertools
import re
import statistics

from extras.cli import InputError

JUMP = 1.5  # usual steps in time, or of a number; what is longer ends a clip
LEFT_OUT = "left out: "  # how a note on what is not read begins
LONG_ENOUGH = 4  # a part that orders frames may give so many times the fewest clips

# Times as they stand in names, the more exact ones first. The groups are named as in `strptime`.
_YEAR = r"(?P<Y>(?:18[5-9]|19\d|20\d)\d)"
_DATES = [
    _YEAR + r"{sep}(?P<m>\d{some}){sep}(?P<d>\d{some})",
    r"(?P<d>\d\d){sep}(?P<m>\d\d){sep}" + _YEAR,
    _YEAR + r"[-_.]?(?P<j>\d\d\d)",
]
_HOURS = r"(?P<H>\d{some})"
_HALF_DAY = r"(?:[\s._-]?(?P<p>[AaPp][Mm])(?![A-Za-z]))?"
_MINUTES = _HOURS + r"{sep}(?P<M>[0-5]\d)"
_SECONDS = _MINUTES + r"{sep}(?P<S>[0-5]\d)"
_FRACTIONS = _SECONDS + r"[-_.,s]?(?P<f>\d|\d\d\d|\d\d\d\d\d\d)"
_CLOCKS = [clock + _HALF_DAY for clock in (_FRACTIONS, _SECONDS, _MINUTES, _HOURS)]
TIMES = [
    re.compile(rf"(?<!\d){form.replace('{sep}', sep).replace('{some}', some)}(?!\d)")
    for form in [
        *(date + r"\D*?" + clock for date in _DATES for clock in _CLOCKS),
        *_DATES,
        _YEAR + r"{sep}(?P<m>0[1-9]|1[0-2])",
        r"(?P<unix>1\d{9}(?:\.\d+|\d\d\d)?)",  # seconds or milliseconds since 1970
        *_CLOCKS[:2],
    ]
    for sep, some in [("", "{2}"), ("[-_.:/ hm]", "{1,2}")]
]
NUMBER, DECIMAL = re.compile(r"\d+"), re.compile(r"\d+(?:\.\d+)?")
VARYING = re.compile(r"\d+" + _HALF_DAY)


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
        alike.setdefault(VARYING.sub("0", file.stem), []).append(file)
    for group in alike.values():
        if len(files) > 1 and not NUMBER.search(group[0].stem):
            for file in group:
                note(f"{LEFT_OUT}{file}: a frame needs a number or a time in its name")
            continue
        by_clip = {}  # constant part of the name -> {number or time: file}
        for file, (rest, key) in zip(group, _rests_and_keys([file.stem for file in group])):
            twin = by_clip.setdefault(rest, {}).setdefault(key, file)
            if twin is not file:
                raise InputError(f"{twin} and {file} are the same frame: keep one of them")
        for frames in by_clip.values():
            keys = sorted(frames)
            ends = jumps(keys)
            clips += [
                [frames[key] for key in keys[start:end]]
                for start, end in itertools.pairwise([0, *ends, len(keys)])
            ]
            if ends:
                before, after = (frames[key].name for key in keys[ends[0] - 1 : ends[0] + 1])
                others = f", and at {len(ends) - 1} other places," if len(ends) > 1 else ""
                note(f"between {before} and {after}{others} frames are missing: a clip ends there")
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
    """Names that differ in digits, AM and PM -> for each (what names its clip, what orders it)."""
    found = {}  # a part that varies, by where it stands in the first name: (keys, rests)
    decimals = {tuple(len(n.partition(".")[2]) for n in DECIMAL.findall(stem)) for stem in stems}
    for pattern in (*TIMES, DECIMAL if len(decimals) == 1 else NUMBER):
        if not pattern.search(stems[0]):
            continue
        matches = [list(pattern.finditer(stem)) for stem in stems]
        if len({len(in_stem) for in_stem in matches}) > 1:
            continue
        for part in zip(*matches):
            if part[0].span() not in found and len({match[0] for match in part}) > 1:
                with contextlib.suppress(ValueError):  # it is no time
                    keys = [_key(match) for match in part]
                    found[part[0].span()] = keys, _rests(stems, part, keys)
    if not found:
        return [(stem, 0) for stem in stems]
    clips = {span: len(set(rests)) for span, (_, rests) in found.items()}
    spans = [span for span in found if clips[span] <= LONG_ENOUGH * min(clips.values())]
    # The last part orders, or another that varies with it: the one that gives the fewest clips, and
    # of several such the first, for times are found before numbers.
    last = found[max(spans, key=lambda span: span[1])][0]
    spans = [span for span in spans if len(set(zip(found[span][0], last))) == len(set(last))]
    keys, rests = found[min(spans, key=clips.get)]
    return list(zip(rests, keys))


def _rests(stems, part, keys):
    """What is left of names without a part of each, and without all that changes with its key."""
    rests = [stem[: m.start()] + "*" + stem[m.end() :] for stem, m in zip(stems, part)]
    columns = [
        column
        for column in zip(*map(NUMBER.findall, rests))
        if len(set(column)) > 1 and len(set(zip(column, keys))) > len(set(column))
    ]
    texts = list(zip(*columns)) if columns else [()] * len(stems)
    return texts if len(set(zip(texts, keys))) == len(keys) else rests


def _key(match):
    """What a match of a number or a time sorts by. Raises ValueError for what is no time."""
    parts = {name: part for name, part in match.groupdict().items() if part}
    if not parts or "unix" in parts:
        return float(match[0]) if "." in match[0] else int(match[0])
    form = " ".join(f"%{name}" for name in parts)
    if "p" in parts:
        form = form.replace("%H", "%I")  # hours up to 12
    time = datetime.datetime.strptime(" ".join(parts.values()), form)
    return (time - datetime.datetime(1970, 1, 1)).total_seconds()
