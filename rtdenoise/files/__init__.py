"""Movies on disk: `open_movie` reads TIFF, ScanImage, OME-Zarr, zarr, HDF5 and NWB; `create_movie` writes OME-TIFF and OME-Zarr."""

from rtdenoise.files.movie import Movie, MovieInfo
from rtdenoise.files.reading import open_movie
from rtdenoise.files.writing import MovieFacts, MovieWriter, create_movie

__all__ = ["Movie", "MovieFacts", "MovieInfo", "MovieWriter", "create_movie", "open_movie"]
