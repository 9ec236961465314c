"""HDF5: the named dataset, an NWB series, or the only movie in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtdenoise.errors import FileFormatError
from rtdenoise.files.arrays import ArrayReader, as_movie_axes, sizes
from rtdenoise.files.movie import Movie, MovieInfo, frame_dtype, need

_NWB_SERIES = ("TwoPhotonSeries", "OnePhotonSeries", "ImageSeries")
_NWB_AXES = {3: "txy", 4: "txyz"}
"""NWB schema, ImageSeries.data: frame, x, y(, z)."""
_PLAIN_AXES = {2: "yx", 3: "tyx"}
_UM_PER_METRE = 1e6


def open_hdf5(path: Path, *, dataset: str | None = None) -> Movie:
    """Open an HDF5 or NWB movie. Raises FileFormatError naming the datasets to choose from, MissingExtraError."""
    h5py = need("h5py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(
            f"{path}: cannot be read as HDF5 (truncated, or still being written?): {error}"
        ) from error
    try:
        return _movie(path, file, _choose(path, h5py, file, dataset))
    except BaseException:
        file.close()
        raise


def _choose(path: Path, h5py: Any, file: Any, dataset: str | None) -> Any:
    found: dict[str, Any] = {}
    file.visititems(
        lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) and node.ndim >= 2 else None
    )
    if dataset is not None:
        wanted = dataset.strip("/")
        chosen = found.get(wanted, found.get(f"{wanted}/data"))
        if chosen is None:
            raise FileFormatError(f"{path}: no dataset {dataset}; datasets there: {', '.join(found) or 'none'}")
        return chosen
    movies = {name: node for name, node in found.items() if _is_series(node)} or {
        n: d for n, d in found.items() if d.ndim == 3
    }
    if len(movies) != 1:
        what = "no 3-D dataset" if not movies else f"{len(movies)} movies"
        raise FileFormatError(f"{path}: {what}; give dataset=..., one of: {', '.join(movies or found) or 'none'}")
    return next(iter(movies.values()))


def _is_series(node: Any) -> bool:
    kind = node.parent.attrs.get("neurodata_type", "")
    return node.name.endswith("/data") and (kind.decode() if isinstance(kind, bytes) else kind) in _NWB_SERIES


def _movie(path: Path, file: Any, array: Any) -> Movie:
    series = _is_series(array)
    axes = (_NWB_AXES if series else _PLAIN_AXES).get(array.ndim)
    if axes is None:
        raise FileFormatError(f"{path}: dataset {array.name} has shape {array.shape}; rtdenoise reads (t, y, x)")
    axes = as_movie_axes(axes, array.shape)
    n = sizes(path, axes, array.shape)
    info = MovieInfo(
        path=path,
        format="nwb" if series else "hdf5",
        shape=(n["y"], n["x"]),
        dtype=frame_dtype(path, array.dtype),
        n_images=n["t"] * n["z"],
        planes=n["z"],
        frame_interval_s=_interval_s(array.parent) if series else None,
        um_per_px=_um_per_px(array.parent) if series else None,
    )
    return Movie(info, ArrayReader(info, array, axes, file.close))


def _interval_s(series: Any) -> float | None:
    if "starting_time" in series and series["starting_time"].attrs.get("rate"):
        return 1.0 / float(series["starting_time"].attrs["rate"])
    if "timestamps" in series and len(series["timestamps"]) > 1:
        times = series["timestamps"]
        return float(times[-1] - times[0]) / (len(times) - 1)
    return None


def _um_per_px(series: Any) -> float | None:
    spacing = series.get("imaging_plane/grid_spacing")
    if spacing is None:
        return None
    unit = spacing.attrs.get("unit", "meters")
    factor = {"meters": _UM_PER_METRE, "micrometers": 1.0, "um": 1.0}.get(
        unit.decode() if isinstance(unit, bytes) else unit
    )
    return float(spacing[0]) * factor if factor else None
