"""The parts of SUDPH that do no I/O and know no clock."""
