"""memfd_create(2) and close_range(2): what Python's os module does not name."""

MFD_NOEXEC_SEAL = 8
"""Never a program to execute (Linux 6.3); where vm.memfd_noexec is 2, files without it are refused. It may still be mapped executable."""

CLOSE_RANGE_UNSHARE = 2
"""Have a table of descriptors of one's own first, into which those of the range are not even copied (Linux 5.9)."""

EVERY_DESCRIPTOR = 0xFFFFFFFF
"""The end of a range that has them all."""
