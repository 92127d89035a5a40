"""Choices that depend on the machine: made by measurement, cached, overridable.

``threads`` holds how OpenMP's threads wait and imports no torch; ``choices`` keeps what
was measured, in the process and in a file; ``precision`` decides between float32 and
half precision.
"""
