"""memfd_create(2): what Python's os module does not name."""

MFD_NOEXEC_SEAL = 8
"""Never a program to execute (Linux 6.3); where vm.memfd_noexec is 2, files without it are refused. It may still be mapped executable."""
