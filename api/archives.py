"""ZIP archives of images, read entry by entry and never unpacked to disk.

An archive is a stranger's: its names lead nowhere (they are labels), its sizes are not believed (no more is read than
an image may have), and what is no image costs one item.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from api.batch_items import RawItem, Refusal, short_name
from shared.domain.errors import ArchiveRefusedError
from shared.domain.job import JobErrorCode

_ENCRYPTED, _UTF8 = 0x1, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# A photo does not shrink: what grows so much on the way out was made to.
_MOST_GROWTH, _SMALL = 200, 1_000_000
_NESTED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
# Where `_EndRecData` has the size of the list, and what one entry of it may take, with a long name.
_LIST_BYTES, _ENTRY_BYTES = 5, 1_000
_CLUTTER = ("thumbs.db", "desktop.ini")


def read_archive(file: IO[bytes], *, max_items: int, max_image_bytes: int) -> Iterator[RawItem]:
    """The entries of an archive that may be images, in its order.

    Raises:
        ArchiveRefusedError: it is no ZIP, is cut off, or has too many entries.
    """
    try:
        _refuse_long_lists(file, max_items)
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ArchiveRefusedError("The body is no ZIP archive, or it is cut off. Send the whole file.") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not _is_clutter(entry)]
        if len(entries) > max_items:
            raise ArchiveRefusedError(
                f"The archive has {len(entries)} files; at most {max_items} are accepted. Split it."
            )
        if not entries:
            raise ArchiveRefusedError("The archive has no files.")
        for entry in entries:
            yield _read_entry(archive, entry, max_image_bytes)


def _refuse_long_lists(file: IO[bytes], max_items: int) -> None:
    """Look at the size of the list of entries before it is read: it goes into memory whole."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is not None and end[_LIST_BYTES] > max_items * _ENTRY_BYTES:
        raise ArchiveRefusedError(f"The archive has too many files; at most {max_items} are accepted. Split it.")


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    """Folders, and what Finder and Explorer leave behind."""
    name = entry.filename.replace("\\", "/")
    last = name.rpartition("/")[2].lower()
    return entry.is_dir() or name.startswith("__MACOSX/") or last.startswith(".") or last in _CLUTTER or not last


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, max_image_bytes: int) -> RawItem:
    name = short_name(_name_of(entry))
    refusal = _refusal_of(entry, max_image_bytes)
    if refusal is not None:
        return RawItem(refusal=refusal, name=name)
    try:
        with archive.open(entry) as opened:
            content = opened.read(max_image_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError):
        detail = "The file can't be unpacked: it is damaged. Pack it again."
        return RawItem(refusal=Refusal(JobErrorCode.IMAGE_DAMAGED, detail), name=name)
    return RawItem(content=content, name=name)


def _refusal_of(entry: zipfile.ZipInfo, max_image_bytes: int) -> Refusal | None:
    if entry.flag_bits & _ENCRYPTED:
        detail = "The file is encrypted. Pack the archive without a password."
        return Refusal(JobErrorCode.INVALID_ITEM, detail)
    if entry.compress_type not in _METHODS:  # some others take as much memory as the archive says
        return Refusal(JobErrorCode.INVALID_ITEM, "The file is packed in a way we don't read. Pack it with deflate.")
    if entry.filename.lower().endswith(_NESTED):
        return Refusal(JobErrorCode.IMAGE_FORMAT, "The file is an archive in the archive. Pack the images themselves.")
    if entry.file_size > max_image_bytes:
        detail = f"The file has {entry.file_size} bytes; an image may have at most {max_image_bytes}."
        return Refusal(JobErrorCode.IMAGE_TOO_LARGE, detail)
    if entry.file_size > _SMALL and entry.file_size > _MOST_GROWTH * max(1, entry.compress_size):
        return Refusal(JobErrorCode.INVALID_ITEM, "The file unpacks to many times its size; no photo does.")
    return None


def _name_of(entry: zipfile.ZipInfo) -> str:
    """The name as it was meant. Old archivers write it in the encoding of their machine and say nothing about it."""
    if entry.flag_bits & _UTF8:
        return entry.filename
    try:
        raw = entry.filename.encode("cp437")
    except UnicodeEncodeError:
        return entry.filename
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return entry.filename
