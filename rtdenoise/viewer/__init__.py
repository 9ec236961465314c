"""The window beside the microscope: raw and denoised, how old they are, and what was lost. A subscriber like any other."""
