"""Recordings from real microscopes, kept beside the project: facts about each, and a clear skip where they are absent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class RealMovie:
    """shape: (images, Y, X).  first_pixels: row 0, columns 0 to 2 of image 0.  last_sum: sum of the last image. Taken with tifffile."""

    name: str
    shape: tuple[int, int, int]
    dtype: str
    first_pixels: tuple[int, int, int]
    last_sum: int
    channels: int = 1

    def __str__(self) -> str:
        return self.name.removesuffix(".tif")


MOVIES = [
    RealMovie("allen_ophys_792757260_raw_100x100x100.tif", (100, 100, 100), "int16", (222, 184, 347), 2570419),
    RealMovie("allen_ophys_movie_100x100x100.tif", (100, 100, 100), "int16", (211, 258, 246), 2187437),
    RealMovie("drosophila_embryo_gfphistone_seq1_t021.tif", (21, 264, 542), "uint8", (14, 23, 23), 4911976),
    RealMovie("mio_stream_daq_200x200_t094.tif", (94, 200, 200), "uint8", (47, 44, 45), 776078),
    RealMovie("mio_wireless_corrupted_200x200_t060.tif", (60, 200, 200), "uint8", (62, 59, 61), 3880279),
    RealMovie("naomi_cidc25_A1_stack_000_009.tif", (10, 490, 490), "int16", (32, 251, 210), 37396798),
    RealMovie("naomi_cidc25_B1_stack_000_009.tif", (10, 490, 490), "int16", (337, 190, 88), 45147698),
    RealMovie("naomi_cidc25_C1_stack_000_009.tif", (10, 490, 490), "int16", (75, 477, -11), 38666202),
    RealMovie("scanimage3_blank-ipa_64x64_t030.tif", (30, 64, 64), "uint16", (34, 22, 13), 148054),
    RealMovie("scanimage_raw_512x512_t006.tif", (6, 512, 512), "int16", (-665, -672, -670), 131731, channels=2),
    RealMovie("thunder_fish_plane0_t240.tif", (240, 76, 87), "uint8", (26, 26, 26), 332907),
    RealMovie("thunder_fish_plane1_t240.tif", (240, 76, 87), "uint8", (25, 25, 25), 369247),
    RealMovie("thunder_mouse_64x64_t500.tif", (500, 64, 64), "int16", (0, 2, 12), 266630),
    RealMovie("tolias_mesoscope2_t000-299_y200-424_x032-256.tif", (300, 224, 224), "int16", (596, 861, 706), 22658620),
    RealMovie("zeiss_calcium_ch0_t100.tif", (100, 120, 160), "uint16", (170, 152, 138), 5281201),
    RealMovie("zeiss_calcium_ch1_t100.tif", (100, 120, 160), "uint16", (212, 190, 164), 4482491),
    RealMovie("zeiss_fura2_pc12_ch0_t060_256x256.tif", (60, 256, 256), "uint16", (4312, 4360, 4804), 157498700),
    RealMovie("zeiss_jurkat_fluo4_t070_384x384.tif", (70, 384, 384), "uint16", (39, 39, 41), 8302677),
]
SCANIMAGE = "scanimage_raw_512x512_t006.tif"
SCANIMAGE_3 = "scanimage3_blank-ipa_64x64_t030.tif"
MOUSE = "thunder_mouse_64x64_t500.tif"
MESOSCOPE = "tolias_mesoscope2_t000-299_y200-424_x032-256.tif"


def real_movie(name: str) -> Path:
    """Path of a recording; skips the test where it is not there."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the real recording {name} is not in {FOLDER}")
    return path
