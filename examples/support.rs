//! Shared by the example programs: devices, progress bars, tables.
