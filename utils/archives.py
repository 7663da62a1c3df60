"""Zip archives of torch: whether their content is still what was written."""

from __future__ import annotations

import copy
import logging
import zipfile
from pathlib import Path

from utils.errors import UserError, quoted

LOG = logging.getLogger(__name__)
_PIECE = 2**20  # bytes read at once


def check_sums(archive: zipfile.ZipFile, path: Path) -> None:
    """Compare every member with its checksum; torch itself does not, and computes with whatever is there.

    An archive without checksums, which torch writes when told to, is read with a warning.

    Raises:
        UserError: a member is damaged, or there are two of one name.
    """
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise UserError(f"{path} is damaged: two of its parts have the same name")
    filled = [member for member in members if member.file_size]
    if filled and not any(member.CRC for member in filled):
        LOG.warning("%s has no checksums: it cannot be told whether it is damaged", path)
        return
    for member in members:
        try:
            with archive.open(member) as stream:
                while stream.read(_PIECE):
                    pass
        except Exception as error:  # zipfile raises what it likes where the headers are damaged
            raise UserError(
                f"{path} is damaged: its part {quoted(member.filename)} is not what was written; "
                "take another copy of the file"
            ) from error


def read_unchecked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return a member's content, whatever its checksum."""
    without = copy.copy(member)
    del without.CRC  # what is not there is not compared
    return archive.read(without)
