"""How good a model is: on simulated movies beside every untrained filter, on a recording without truth, or another program's file.

Everything is measured on what the live stream gives, frame by frame, with no torch involved. Pictures need the `evaluate` extra.
"""
