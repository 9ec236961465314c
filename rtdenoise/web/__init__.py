"""The browser view: a process of its own that subscribes like anyone and shows raw and denoised frames to whoever has the token."""
