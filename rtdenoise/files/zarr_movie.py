"""OME-Zarr (0.4 on zarr 2, 0.5 on zarr 3) and plain zarr arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdenoise.errors import FileFormatError
from rtdenoise.files import ome
from rtdenoise.files.arrays import ArrayReader, as_movie_axes, sizes
from rtdenoise.files.movie import Movie, MovieInfo, frame_dtype, need


def open_zarr(path: Path, *, dataset: str | None = None) -> Movie:
    """Open the full resolution of the first image, or the array `dataset`. Raises FileFormatError, MissingExtraError."""
    zarr = need("zarr")
    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises KeyError, ValueError, JSONDecodeError... for metadata it cannot parse
        raise FileFormatError(f"{path}: its zarr metadata cannot be read: {error}") from error
    if isinstance(node, zarr.Array):
        return _plain(path, node)
    if dataset is not None:
        return _plain(path, _member(path, node, dataset))
    image = _first_image(node)
    if image is not None:
        return _ome(path, *image)
    arrays = {name: a for name, a in node.arrays() if a.ndim == 3}
    if len(arrays) != 1:
        known = ", ".join(name for name, _ in node.arrays()) or "none"
        raise FileFormatError(f"{path}: not an OME-Zarr, and not one movie; give dataset=..., one of: {known}")
    return _plain(path, next(iter(arrays.values())))


def _member(path: Path, group: Any, name: str) -> Any:
    if name not in group or not hasattr(group[name], "ndim"):
        known = ", ".join(found for found, _ in group.arrays()) or "none"
        raise FileFormatError(f"{path}: no array {name}; arrays there: {known}")
    return group[name]


def _first_image(group: Any) -> tuple[Any, Mapping[str, Any]] | None:
    """(group, multiscale) of the image itself, or of image 0 of a bioformats2raw collection."""
    if "0" in group and "bioformats2raw.layout" in _ome_attributes(group):
        group = group["0"]
    multiscales = _ome_attributes(group).get("multiscales")
    return (group, multiscales[0]) if multiscales else None


def _ome_attributes(group: Any) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = dict(group.attrs)
    nested: Mapping[str, Any] = attributes.get("ome", attributes)
    return nested


def _ome(path: Path, group: Any, multiscale: Mapping[str, Any]) -> Movie:
    level = multiscale["datasets"][0]
    array = _member(path, group, level["path"])
    # before 0.3 there were no axes and every image was tczyx; 0.3 has bare names
    named = [{"name": axis} if isinstance(axis, str) else axis for axis in multiscale.get("axes", "tczyx")]
    scales: dict[str, tuple[float, str]] = {}
    for step in [*multiscale.get("coordinateTransformations", []), *level.get("coordinateTransformations", [])]:
        for axis, factor in zip(named, step.get("scale", []), strict=False):
            before = scales.get(axis["name"], (1.0, ""))[0]
            scales[axis["name"]] = (before * factor, axis.get("unit", ""))
    axes = "".join(axis["name"] for axis in named)
    return _movie(
        path,
        "ome-zarr",
        array,
        axes,
        _in_units(scales, "t", ome.SECONDS_PER_UNIT),
        _in_units(scales, "x", ome.UM_PER_UNIT),
    )


def _in_units(scales: Mapping[str, tuple[float, str]], axis: str, units: Mapping[str, float]) -> float | None:
    scale, unit = scales.get(axis, (1.0, ""))
    return scale * units[unit] if unit in units else None


def _plain(path: Path, array: Any) -> Movie:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = "".join(str(name)[:1].lower() for name in names) if names and all(names) else ""
    axes = letters if set("yx") <= set(letters) and len(set(letters)) == array.ndim else "tyx"[-array.ndim :]
    if len(axes) != array.ndim:
        raise FileFormatError(f"{path}: array {array.shape} has no named axes; rtdenoise reads (t, y, x) or OME-Zarr")
    return _movie(path, "zarr", array, axes, None, None)


def _movie(path: Path, kind: str, array: Any, axes: str, interval_s: float | None, um_per_px: float | None) -> Movie:
    axes = as_movie_axes(axes, array.shape)
    n = sizes(path, axes, array.shape)
    info = MovieInfo(
        path=path,
        format=kind,
        shape=(n["y"], n["x"]),
        dtype=frame_dtype(path, array.dtype),
        n_images=n["t"] * n["z"] * n["c"],
        channels=n["c"],
        planes=n["z"],
        frame_interval_s=interval_s,
        um_per_px=um_per_px,
    )
    return Movie(info, ArrayReader(info, array, axes, lambda: None))
