"""Real-time denoising of microscope movies, beside the microscope."""

__version__ = "0.1.0"
