"""Values of the fields of vector files: one for each feature, as text in a known encoding."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.legend import normalize_code
from gravmap.geology.vector_integrity import features

log = logging.getLogger(__name__)

_ENCODINGS = ("CP1251", "CP866", "KOI8-R", "GB18030", "BIG5", "SHIFT_JIS", "EUC-KR", "CP1252")


def single_values(values: NDArray[Any], name: str, is_json: bool, path: Path) -> NDArray[Any]:
    """Values of a field that may have lists or objects, as in GeoJSON and file geodatabases, if each is one value.

    Parameters
    ----------
    values : ndarray, shape (n,)
        As pyogrio reads them; a list is an array.
    name : str
        Name of the field, for messages.
    is_json : bool
        Whether the field may have objects, as text.
    path : Path
        The file, for messages.

    Raises
    ------
    InputError
        A list has several values, or a value is an object.
    """
    if values.dtype != object:
        return values
    lists = [isinstance(value, np.ndarray) for value in values]
    nested = [value for value, is_list in zip(values, lists, strict=True) if is_list and len(value) > 1]
    nested += [value for value in values if is_json and isinstance(value, str) and value[:1] in ("{", "[")]
    if nested:
        found = nested[0] if isinstance(nested[0], str) else f"[{', '.join(map(str, nested[0]))}]"
        raise InputError(
            f"The field {name} of {path} has a list or an object in {features(len(nested))}: {found[:80]}.",
            "Write one value for each feature, or give another field.",
        )
    if not any(lists):
        return values
    single = np.empty(len(values), dtype=object)
    for k, (value, is_list) in enumerate(zip(values, lists, strict=True)):
        single[k] = (value[0] if len(value) else None) if is_list else value
    return single


def decoded_text(values: NDArray[Any], name: str, known: Collection[str], path: Path) -> NDArray[Any]:
    """Text of a table that states no encoding, if its encoding is certain.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Read as ISO-8859-1.
    name : str
        Name of the field, for messages.
    known : collection of str
        Values that are correct as read.
    path : Path
        The file, for messages.

    Returns
    -------
    ndarray, shape (n,)
        The values as they are if they are ASCII or known; in UTF-8 if they are valid UTF-8.

    Raises
    ------
    InputError
        They may be in any encoding.
    """
    foreign = sorted({value for value in values if isinstance(value, str) and not value.isascii()})
    try:
        raw = [value.encode("latin-1") for value in foreign]
    except UnicodeEncodeError:  # GDAL knew better
        return values
    if all(normalize_code(value) in known for value in foreign):
        return values
    readings = {encoding: _decode(raw, encoding) for encoding in ("UTF-8", *_ENCODINGS)}
    if readings["UTF-8"]:  # text in another encoding is hardly ever valid UTF-8
        replaced = dict(zip(foreign, readings["UTF-8"], strict=True))
        log.info("%s states no encoding; its text is UTF-8.", path)
        return np.array([replaced.get(value, value) for value in values], dtype=object)
    fitting = [key for key, texts in readings.items() if any(normalize_code(text) in known for text in texts)]
    shown = [f"{key} ({readings[key][0]})" for key in fitting or readings if readings[key]]
    beside = "a .cpg" if path.suffix.lower() == ".zip" else path.with_suffix(".cpg")
    raise InputError(
        f"The field {name} of {path} has letters outside ASCII, and nothing states their encoding.",
        f"Write its name into {beside} beside the .dbf; the first such value would read in "
        f"{', '.join(shown[:6]) or 'none of the usual ones'}.",
    )


def _decode(raw: Sequence[bytes], encoding: str) -> list[str]:
    """Texts in an encoding; empty if one is not valid or not printable."""
    try:
        texts = [text.decode(encoding) for text in raw]
    except UnicodeDecodeError:
        return []
    return texts if all(text.isprintable() for text in texts) else []
