"""The offline verb: a movie in, a denoised movie out, by the same stream as live, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rtdenoise.calibration import frames_needed, starting_normalization
from rtdenoise.engine.load import EngineFactory, factory_for
from rtdenoise.errors import RtDenoiseError
from rtdenoise.files import create_movie, open_movie
from rtdenoise.files.movie import Movie
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.settings import EngineSettings
from rtdenoise.stream import StreamingDenoiser

Key = tuple[int, int]
BLOCK_MB = 32
"""Read at once from the file. Engineering choice."""


def denoise_movie(
    movie_in: Path,
    movie_out: Path,
    engine: EngineSettings,
    *,
    channels: int | None = None,
    dataset: str | None = None,
    dtype: str | None = "float32",
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Denoise a file into an OME-TIFF or OME-Zarr; returns the number of frames written.

    dtype: of the output, None for the input's (rounded and clipped).  progress: called with (done, total) after each frame.
    Raises FileFormatError for files, BundleError, EngineError, ConfigError or MissingExtraError for the engine.
    """
    with open_movie(movie_in, channels=channels, dataset=dataset) as movie:
        info = movie.info
        writer = create_movie(movie_out, info, dtype=dtype, overwrite=overwrite)
        with writer:
            for n_written, frame in enumerate(denoised(movie, engine), start=1):
                writer.append(frame.pixels, channel=frame.stamp.channel, plane=frame.stamp.plane)
                progress(n_written, info.n_images)
    return info.n_images


def denoised(movie: Movie, engine: EngineSettings) -> Iterator[Frame]:
    """Every frame of a movie once, denoised, float32 counts; in order within each channel and plane. Pixels as in StreamingDenoiser.

    A file that breaks off gives what could be read, then raises.
    """
    factory = factory_for(engine, movie.info.shape)
    streams: dict[Key, StreamingDenoiser] = {}
    waiting: dict[Key, list[Frame]] = {}
    broken: RtDenoiseError | None = None
    taken = frames(movie)
    while True:
        try:
            frame = next(taken)
        except StopIteration:
            break
        except RtDenoiseError as error:  # what was read before still comes out
            broken = error
            break
        key = frame.stamp.key
        if key in streams:
            yield from streams[key].push(frame)
            continue
        waiting.setdefault(key, []).append(Frame(frame.pixels.copy(), frame.stamp))
        if len(waiting[key]) >= frames_needed(engine):
            yield from _begin(streams, waiting.pop(key), factory, engine)
    for held in waiting.values():
        yield from _begin(streams, held, factory, engine)
    for stream in streams.values():
        yield from stream.flush()
    if broken is not None:
        raise broken


def frames(movie: Movie) -> Iterator[Frame]:
    """The frames of a movie in acquisition order; pixels are valid until the next one."""
    info = movie.info
    n_block = max(1, (BLOCK_MB << 20) // info.image_bytes)
    block = np.empty((min(n_block, info.n_images), *info.shape), info.dtype)
    interval_ns = round((info.frame_interval_s or 0.0) * 1e9)
    for start in range(0, info.n_images, n_block):
        n_here = min(n_block, info.n_images - start)
        n_good = _read_block(movie, start, block[:n_here])
        for i in range(n_good):
            channel, plane, number = movie.frame_stamp(start + i)
            stamp = FrameStamp("0", start + i, number, 0, number * interval_ns, 0, channel, plane)
            yield Frame(block[i], stamp)
        if n_good < n_here:
            movie.read_into(start + n_good, block[:1])  # raises what is wrong with this frame


def _read_block(movie: Movie, start: int, block: Pixels) -> int:
    """Fill `block` from frame `start` on; returns how many frames could be read before the first bad one."""
    try:
        movie.read_into(start, block)
    except RtDenoiseError:
        return next((i for i in range(len(block)) if not _readable(movie, start + i, block[i : i + 1])), len(block))
    return len(block)


def _readable(movie: Movie, number: int, out: Pixels) -> bool:
    try:
        movie.read_into(number, out)
    except RtDenoiseError:
        return False
    return True


def _begin(
    streams: dict[Key, StreamingDenoiser], held: list[Frame], factory: EngineFactory, engine: EngineSettings
) -> Iterator[Frame]:
    """Calibrate a stream on the frames held back for it, then denoise them."""
    normalization = starting_normalization(engine, [frame.pixels for frame in held])
    stream = StreamingDenoiser(factory.make(), normalization, factory.shape, ahead=1)
    streams[held[0].stamp.key] = stream
    for frame in held:
        yield from stream.push(frame)
